// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/console"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// TestTerminalMoves: a container with a terminal of its own moves with a stopped
// job and the modes that it gave its terminal.
func TestTerminalMoves(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "screen"
	w.onTerminal(w.alpha, "run", "--detach", "--tty", "--snapshotter", w.alpha.d.Snapshotter, "--runtime", itest.Mig, image.Busybox.Name, id,
		"sh", "-c", `stty -echo rows 33 columns 111; set -m; sleep 10000 & kill -STOP $!; echo $! >/tmp/job; while :; do sleep 0.1; done`)
	t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
	look := `until [ -s /tmp/job ] && grep -q 'State:.T' /proc/$(cat /tmp/job)/status; do sleep 0.05; done
		cut -d' ' -f7 /proc/1/stat; readlink /proc/1/fd/1; stty -F /dev/pts/0 size; stty -F /dev/pts/0 -a | grep -o '[-]echo '; echo pid $(cat /tmp/job)`
	from, to := w.alpha, w.beta
	want := strings.TrimSpace(from.exec(t, id, "sh", "-c", look))
	if !strings.HasPrefix(want, "34816\n/dev/pts/0\n33 111\n-echo") {
		t.Fatalf("before the move: %q", want)
	}
	for range 2 {
		w.mustMove(from, id, to.IP)
		w.one(id, to, from)
		if got := strings.TrimSpace(to.exec(t, id, "sh", "-c", look)); got != want {
			t.Errorf("on %s: %q, want %q", to.Name, got, want)
		}
		from, to = to, from
	}
}

// onTerminal runs ctr on a terminal, without which it makes none.
func (w *world) onTerminal(h *host, args ...string) {
	w.t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		w.t.Fatal(err)
	}
	defer master.Close()
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer slave.Close()
	cmd := h.d.CtrCommand(w.t.Context(), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if err := cmd.Run(); err != nil {
		w.t.Fatal(err)
	}
}
