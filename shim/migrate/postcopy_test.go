// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// postCopy begins a move that leaves memory behind, slow enough to be disturbed.
func (w *world) postCopy(from *copy) (token wire.Token, to *copy, moved, arrived chan error) {
	token = wire.NewToken()
	ctx := context.WithoutCancel(w.root.Context())
	to, arrived = w.destination(ctx, token)
	m := w.address(token)
	m.Strategy, m.Bandwidth = "post-copy", 64<<20
	return token, to, w.move(ctx, from, m), arrived
}

// TestPostCopy: memory that is left behind arrives, pulled or pushed.
func TestPostCopy(t *testing.T) {
	w := newWorld(t, "32")
	from := w.source()
	for range 2 {
		before, _, _ := from.report()
		token, to, moved, arrived := w.postCopy(from)
		from = w.settled(from, to, before, moved, arrived, token)
		if from != to {
			t.Fatal("it did not move")
		}
	}
}

// TestPostCopyCut cuts the network while memory is behind: the hosts meet again,
// the copy fetches the rest, and nothing is lost or made up.
func TestPostCopyCut(t *testing.T) {
	w := newWorld(t, "32")
	n := newNetwork(t, w.addr)
	w.addr = n.l.Addr().String()
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	for _, step := range []string{"source: left", "destination: filling"} {
		t.Run(step, func(t *testing.T) {
			w.t = t
			fault(t, "stop "+step)
			defer fault(t, "")
			before, _, _ := from.report()
			token, to, moved, arrived := w.postCopy(from)
			pid := w.stopped(token, step == "source: left")
			fault(t, "")
			n.cut(true)
			w.must(unix.Kill(pid, unix.SIGCONT))
			time.Sleep(200 * time.Millisecond) // so that meeting again fails at first
			n.cut(false)
			from = w.settled(from, to, before, moved, arrived, token)
			if from != to {
				t.Error("it did not move")
			}
			for _, side := range []journal.Side{journal.Source, journal.Destination} {
				if s, err := journal.Read(w.src.JournalDir, token, side); err != nil || s.Left {
					t.Errorf("the %s's journal says that something is missing: %+v, %v", side, s, err)
				}
			}
		})
	}
	w.t = t
}

// TestPostCopyDestinationDies: a copy whose engine dies while memory is behind is
// ended, and takes no step with memory that was made up; the source keeps what
// is left, frozen, until somebody kills it.
func TestPostCopyDestinationDies(t *testing.T) {
	w := newWorld(t, "32")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	fault(t, "kill destination: filling")
	token, to, moved, arrived := w.postCopy(from)
	if err := w.await("the arrival", arrived); err == nil {
		t.Error("a copy without its memory has arrived")
	} else {
		t.Log(err)
	}
	fault(t, "")
	to.gone()
	w.awaitEntry(token, journal.Source, handover.EntryMoved)
	s, err := journal.Read(w.src.JournalDir, token, journal.Source)
	if err != nil || !s.Left {
		t.Errorf("the source's journal: %+v, %v", s, err)
	}
	select {
	case err := <-moved:
		t.Errorf("the source has ended: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	if from.runs() {
		t.Error("the source runs though its copy has run")
	}
	w.must(unix.Kill(s.Engine.Pid, unix.SIGKILL)) // its shim keeps the container
	select {
	case err := <-moved:
		t.Errorf("the source has ended: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	if from.runs() {
		t.Error("the source runs though its copy has run")
	}
	w.must(from.c.Signal(syscall.SIGKILL, true))
	if err := w.await("the move", moved); err == nil {
		t.Error("a move that lost its copy has succeeded")
	}
}
