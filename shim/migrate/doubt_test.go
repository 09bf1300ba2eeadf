// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// TestOverdueAnswer: while the source's engine asks what became of COMMIT, which a
// destination that does nothing has not answered, the status says that the container is
// in doubt, and the shim is told. When the destination goes on, nothing is in doubt.
func TestOverdueAnswer(t *testing.T) {
	w := newWorld(t, "1")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	told := make(chan struct{}, 16)
	w.inDoubt = func() { told <- struct{}{} }
	fault(t, "stop destination: COMMIT heard")
	before, _, _ := from.report()
	token := wire.NewToken()
	to, arrived := w.destination(w.root.Context(), token)
	begun := time.Now()
	moved := w.move(w.root.Context(), from, w.address(token))
	pid := w.stopped(token, false)
	fault(t, "")
	st := w.awaitDoubt(token, "READY")
	if st.Phase != request.Active || st.Over() || st.Doubt.Destination != w.addr || st.Doubt.Since.Before(begun) {
		t.Errorf("in doubt it is %s: %+v", st.Phase, st.Doubt)
	}
	select {
	case <-told:
	case <-time.After(patience):
		t.Error("the shim is not told that it is in doubt")
	}
	if from.runs() {
		t.Error("in doubt, the source runs")
	}
	w.must(unix.Kill(pid, unix.SIGCONT))
	if runs := w.settled(from, to, before, moved, arrived, token); runs != to {
		t.Error("the container has not moved")
	}
	w.awaitDoubt(token, "")
}

// TestForcedTooLate: a person frees a source whose copy runs after all. What the
// destination says counts where both are known.
func TestForcedTooLate(t *testing.T) {
	w := newWorld(t, "1")
	n := newNetwork(t, w.addr)
	w.addr = n.l.Addr().String()
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	fault(t, "stop destination: COMMIT heard")
	before, _, _ := from.report()
	token := wire.NewToken()
	to, arrived := w.destination(w.root.Context(), token)
	moved := w.move(w.root.Context(), from, w.address(token))
	pid := w.stopped(token, false)
	fault(t, "")
	s, err := journal.Read(w.src.JournalDir, token, journal.Source)
	w.must(err)
	w.must(unix.Kill(s.Engine.Pid, unix.SIGSTOP)) // it hears nothing any more
	w.must(unix.Kill(pid, unix.SIGCONT))
	w.awaitEntry(token, journal.Destination, handover.EntryRunning)
	w.must(journal.Force(w.src.JournalDir, token))
	w.must(unix.Kill(s.Engine.Pid, unix.SIGKILL)) // its shim asks at once
	if runs := w.settled(from, to, before, moved, arrived, token); runs != to {
		t.Error("the container has not moved")
	}
}

// blocked keeps a journal from being written or locked, as a full disk does, until it is
// called: no file can be made where a directory is.
func (w *world) blocked(token wire.Token, side journal.Side) (free func()) {
	w.t.Helper()
	path := journal.Path(w.src.JournalDir, token, side)
	files := []string{path + ".new", path + ".lock"}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) { // what was prepared
			w.t.Fatal(err)
		}
		w.must(os.Mkdir(f, 0o700))
	}
	return func() {
		for _, f := range files {
			w.must(os.Remove(f))
		}
	}
}

// TestFullDisk: an engine dies, and its supervisor cannot write the journal. Nothing is
// concluded from that: the container that is the one copy goes on.
func TestFullDisk(t *testing.T) {
	w := newWorld(t, "1")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	for _, test := range []struct {
		step  string
		moves bool
		// at once: nobody has to write anything before the container goes on.
		atOnce bool
	}{
		{"source: sealed", false, true},
		{"source: COMMIT sent", true, false},
		{"source: RUNNING heard", true, false},
		{"destination: let go", true, false},
		{"destination: RUNNING written", true, true},
	} {
		if !t.Run(test.step, func(t *testing.T) {
			w.t = t
			side := journal.Destination
			if strings.HasPrefix(test.step, "source") {
				side = journal.Source
			}
			fault(t, "stop "+test.step)
			defer fault(t, "")
			before, _, _ := from.report()
			token := wire.NewToken()
			to, arrived := w.destination(w.root.Context(), token)
			moved := w.move(w.root.Context(), from, w.address(token))
			pid := w.stopped(token, side == journal.Source)
			fault(t, "")
			free := w.blocked(token, side)
			w.must(unix.Kill(pid, unix.SIGKILL))
			if !test.atOnce {
				time.Sleep(time.Second) // it is tried in vain
				select {
				case err := <-moved:
					t.Fatalf("the move has ended before the journal was written: %v", err)
				case err := <-arrived:
					if side == journal.Destination {
						t.Fatalf("the arrival has ended before the journal was written: %v", err)
					}
					arrived <- err
				default:
				}
				free()
			}
			after := w.settled(from, to, before, moved, arrived, token)
			if (after == to) != test.moves {
				t.Errorf("moved: %v", after == to)
			}
			from = after
			if test.atOnce {
				free()
			}
		}) {
			break
		}
	}
	w.t = t
}

// TestRunningIsWrittenLater: the copy runs, its engine cannot write that down, and its
// program ends before the source can ask. The source is told that it ran, and ends.
func TestRunningIsWrittenLater(t *testing.T) {
	w := newWorld(t, "1")
	n := newNetwork(t, w.addr)
	w.addr = n.l.Addr().String()
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	fault(t, "stop destination: let go")
	token := wire.NewToken()
	to, arrived := w.destination(w.root.Context(), token)
	moved := w.move(w.root.Context(), from, w.address(token))
	pid := w.stopped(token, false)
	fault(t, "")
	n.cut(true)
	free := w.blocked(token, journal.Destination)
	w.must(unix.Kill(pid, unix.SIGCONT))
	if err := w.await("the arrival", arrived); err != nil {
		t.Fatal(err)
	}
	free()
	w.awaitEntry(token, journal.Destination, handover.EntryRunning)
	w.must(to.c.Signal(unix.SIGKILL, true))
	to.gone()
	n.cut(false)
	if err := w.await("the move", moved); err != nil {
		t.Errorf("the copy ran, and the source says %v", err)
	}
	from.gone()
}
