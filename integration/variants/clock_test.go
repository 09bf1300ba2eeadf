// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"fmt"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestClocksOfExecSessions: a container does not see the time that it was away,
// and neither does who visits it later: both live in one time namespace, in each
// generation.
func TestClocksOfExecSessions(t *testing.T) {
	h := startHost(t, daemon.V24)
	b := h.run(t, "clocks-0", variant{})
	uptime := func() (s float64) {
		t.Helper()
		r := h.Must(t, "tasks", "exec", "--exec-id", fmt.Sprint("ask", time.Now().UnixNano()), b.id, "cat", "/proc/uptime")
		if _, err := fmt.Sscan(r.Stdout, &s); err != nil {
			t.Fatalf("uptime %q: %v", r.Stdout, err)
		}
		return s
	}
	for generation := range 3 {
		before, at := uptime(), time.Now()
		dir := b.checkpointExit()
		const away = 3 * time.Second
		time.Sleep(away)
		b.remove()
		b = h.restore(t, fmt.Sprint("clocks-", generation+1), variant{}, dir)
		after := uptime()
		if passed := time.Duration((after - before) * float64(time.Second)); passed < 0 || passed > time.Since(at)-away+100*time.Millisecond {
			t.Errorf("generation %d: uptime %.2f s before and %.2f s after, of %s it was away for %s", generation, before, after, time.Since(at), away)
		}
		b.lives("afterwards")
	}
	b.remove()
}
