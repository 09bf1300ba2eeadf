// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestSlowLink: a step that takes several times as long as the watchdog's patience
// is no standstill as long as bytes arrive. What was sent waits in the host's own
// buffers for most of that time.
func TestSlowLink(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	w.beta.d.Load(t, image.Busybox) // so that the image does not travel
	const id, megabytes, perSecond, patience = "writer", 3, 400_000, time.Second
	w.d(w.alpha, id)
	w.alpha.exec(t, id, "sh", "-c", fmt.Sprintf("head -c %d /dev/urandom >/data; md5sum /data >/sum", megabytes<<20))
	// tc-tbf(8): the kernel has no other qdisc that is slow.
	w.must(w.alpha.Run(fmt.Sprintf("tc qdisc add dev eth0 root tbf rate %dbit burst 16kb latency 400ms", 8*perSecond)))
	r := w.mustMove(w.alpha, "--policy", "watchdog="+patience.String(), "--compress", "none", id, w.beta.IP)
	if least := float64(megabytes<<20) / perSecond * 1000; r.TotalMS < 0.8*least {
		t.Errorf("the link was not slow: %.0f ms, want %.0f", r.TotalMS, least)
	}
	w.one(id, w.beta, w.alpha)
	if got := w.beta.exec(t, id, "md5sum", "-c", "/sum"); !strings.Contains(got, "OK") {
		t.Errorf("the file has changed: %s", got)
	}
}
