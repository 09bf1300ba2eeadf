// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// session starts a program in a container and leaves it there. Its input must
// not end before ctr has gone: ctr tells the shim of that end (CloseIO) if it
// sees it in time.
func session(t *testing.T, host *itest.Host, id, name, script string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd := host.CtrCommand(t.Context(), "tasks", "exec", "--detach", "--exec-id", name, id, "sh", "-c", script)
	cmd.Stdin = r
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ctr tasks exec %s: %v\n%s", name, err, out)
	}
}

// A session of exec is carried, and is a child of the init afterwards. Its client
// is not there any more: its input is at its end, what it writes goes nowhere,
// and its terminal is hung up.
func TestCheckpointExecSession(t *testing.T) {
	host := itest.Start(t, daemon.Config{Version: daemon.V24}, image.Busybox)
	const id = "session"
	removeLater(t, host, id)
	host.Must(t, "run", "--detach", "--null-io", "--runtime", itest.Mig, image.Busybox.Name, id, "sh", "-c", "while :; do sleep 0.1; done")

	session(t, host, id, "reader", `cat >/tmp/read; echo end >/tmp/end`)
	session(t, host, id, "writer", `n=0; while echo $n; do n=$((n+1)); echo $n >/tmp/w; mv /tmp/w /tmp/written; sleep 0.02; done; echo fails >/tmp/fails`)
	s := onScreen(t, host, 30, 100, "tasks", "exec", "--tty", "--exec-id", "screen", id, "sh", "-c",
		`trap 'echo hup >/tmp/hup' HUP; [ -t 0 ] && echo up; echo up >/tmp/up; while [ ! -e /tmp/hup ]; do sleep 0.05; done; read line || echo eof >/tmp/eof`)
	s.expect("up")
	written := func() int {
		return number(t, strings.TrimSpace(shell(t, host, id, "until [ -s /tmp/written ]; do sleep 0.05; done; cat /tmp/written")))
	}
	shell(t, host, id, "until pidof cat >/dev/null && [ -s /tmp/up ]; do sleep 0.05; done")
	beforehand := written()
	session(t, host, id, "free", `exec </dev/null >/dev/null 2>&1; echo $$ >/tmp/pid; n=0; while :; do n=$((n+1)); echo $n >/tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done`)
	count := func() int {
		return number(t, strings.TrimSpace(shell(t, host, id, "until [ -s /tmp/count ]; do sleep 0.05; done; cat /tmp/count")))
	}
	before := count()
	save(t, host, id, "mig.test/session:saved")
	host.Remove(id)
	restore(t, host, id, "mig.test/session:saved")
	first := count()
	if first < before {
		t.Errorf("the session counted to %d and now to %d", before, first)
	}
	time.Sleep(500 * time.Millisecond)
	if now := count(); now <= first {
		t.Errorf("the session stands still at %d", now)
	}
	if parent := shell(t, host, id, `grep PPid /proc/$(cat /tmp/pid)/status`); strings.Fields(parent)[1] != "1" {
		t.Errorf("its parent is %q, want the init", parent)
	}
	shell(t, host, id, "until [ -s /tmp/end ] && [ -s /tmp/hup ] && [ -s /tmp/eof ]; do sleep 0.05; done; [ ! -s /tmp/read ]")
	if now := written(); now <= beforehand {
		t.Errorf("who writes to the client has counted to %d and now to %d", beforehand, now)
	}
	shell(t, host, id, "[ ! -e /tmp/fails ]")
}
