// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// session starts a program in a container and leaves it there.
func session(t *testing.T, host *itest.Host, id, name, script string) {
	t.Helper()
	host.Must(t, "tasks", "exec", "--detach", "--exec-id", name, id, "sh", "-c", script)
}

// A session of exec whose streams lead to its client is named and refused; one
// that has let go of them is carried, and is a child of the init afterwards.
func TestCheckpointExecSession(t *testing.T) {
	host := itest.Start(t, daemon.Config{Version: daemon.V24}, image.Busybox)
	const id = "session"
	removeLater(t, host, id)
	host.Must(t, "run", "--detach", "--null-io", "--runtime", itest.Mig, image.Busybox.Name, id, "sh", "-c", "while :; do sleep 0.1; done")

	session(t, host, id, "held", "sleep 1000")
	result := host.Ctr(t.Context(), "containers", "checkpoint", "--rw", "--image", "--task", id, "mig.test/session:refused")
	if result.Code == 0 || !strings.Contains(result.Stderr, "held by a process outside") {
		t.Fatalf("a session with a client was not refused by name: exit %d: %s", result.Code, result.Stderr)
	}
	host.Must(t, "tasks", "kill", "--exec-id", "held", "--signal", "KILL", id)
	host.Ctr(t.Context(), "tasks", "delete", "--exec-id", "held", id)

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
}
