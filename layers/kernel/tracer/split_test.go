// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRunSplit: what is done in the middle sees the first calls' results and can
// change the others, which are made whatever it says.
func TestRunSplit(t *testing.T) {
	g := launch(t, "victim")
	p := attach(t, newTracer(t), g.pid)
	boom := errors.New("boom")
	for _, want := range []error{nil, boom} {
		first := []Call{Syscall(unix.SYS_GETPID), Syscall(unix.SYS_DUP, 0)}
		rest := []Call{Close(-1), Syscall(unix.SYS_GETPPID)}
		err := p.RunSplit(p.Leader(), first, func() error {
			if first[0].Ret != int64(g.pid) || first[1].Failed() {
				t.Errorf("in the middle getpid says %d, dup %d", first[0].Ret, first[1].Ret)
			}
			if rest[1].Ret != retPending {
				t.Error("the last call was made already")
			}
			rest[0] = Close(int(first[1].Ret))
			return want
		}, rest)
		if !errors.Is(err, want) {
			t.Errorf("RunSplit says %v, want %v", err, want)
		}
		if err := Check(rest); err != nil {
			t.Error(err)
		}
	}
	must(t, p.Detach())
	g.verify()
}
