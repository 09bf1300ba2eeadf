// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"testing"

	"golang.org/x/sys/unix"
)

// dump is what an engine does to a source: state and batches in each thread.
func dump(p *Process) error {
	return p.Do(func() error {
		var batches []Batch
		s, err := p.Scratch()
		if err != nil {
			return err
		}
		for i, th := range p.Threads() {
			at, err := s.Alloc(4096)
			if err != nil {
				return err
			}
			calls := []Call{Sigaltstack(0, at), Prctl(unix.PR_GET_NAME, at+64), getpid}
			if i == 0 {
				for sig := 1; sig <= 64; sig++ {
					calls = append(calls, RtSigaction(sig, 0, at+128+uint64(sig)*32))
				}
			}
			batches = append(batches, Batch{th, calls})
		}
		if err := p.RunEach(batches); err != nil {
			return err
		}
		for _, b := range batches {
			if err := Check(b.Calls); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestOneDump(t *testing.T) {
	for _, name := range []string{"victim", "victim-dyn"} {
		t.Run(name, func(t *testing.T) {
			g := launch(t, name)
			p := attach(t, newTracer(t), g.pid)
			if n := len(p.Threads()); n != 3 {
				t.Fatalf("%d threads", n)
			}
			calls := []Call{getpid, Syscall(unix.SYS_GETTID), Syscall(unix.SYS_CLOSE, 9999)}
			must(t, p.Run(p.Threads()[1], calls))
			if calls[0].Ret != int64(g.pid) || calls[1].Ret != int64(p.Threads()[1].Tid) || calls[2].Errno() != unix.EBADF { //nolint:errorlint // a plain Errno
				t.Fatalf("%+v", calls)
			}
			must(t, dump(p))
			if r := p.TouchedCode(); r != (Range{}) {
				t.Errorf("code was changed at %x", r)
			}
			must(t, p.Detach())
			if _, eintr, _, maps := g.verify(); eintr != 0 || maps != 0 {
				t.Errorf("eintr %d, %d mappings more", eintr, maps)
			}
		})
	}
}

// TestThousandDumps: registers, vector state, time-outs, masks, SIGTRAP's
// disposition and memory survive; no system call returns a spurious EINTR.
func TestThousandDumps(t *testing.T) {
	g := launch(t, "victim")
	tr := newTracer(t)
	for i := range 1000 {
		p := attach(t, tr, g.pid)
		if err := dump(p); err != nil {
			t.Fatal(i, err)
		}
		must(t, p.Detach())
	}
	if _, eintr, _, maps := g.verify(); eintr != 0 || maps != 0 {
		t.Errorf("eintr %d, %d mappings more", eintr, maps)
	}
}
