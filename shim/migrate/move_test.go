// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

func jsonOf(v any) ([]byte, error) { return json.Marshal(v) }

// TestMove moves a container, and its copy again: byte-exact, with its pid, and
// the program itself says how long it did not run.
func TestMove(t *testing.T) {
	for _, size := range []string{"1", "64"} {
		t.Run(size+"MB", func(t *testing.T) {
			w := newWorld(t, size)
			from := w.source()
			for range 3 {
				before, _, _ := from.report()
				token := wire.NewToken()
				to, arrived := w.destination(t.Context(), token)
				moved := w.move(t.Context(), from, w.address(token))
				if err := w.await("the move", moved); err != nil {
					t.Fatal(err)
				}
				from.gone()
				if err := w.await("the arrival", arrived); err != nil {
					t.Fatal(err)
				}
				ticks, gap, memory := to.report()
				if memory != "ok" || ticks <= before {
					t.Errorf("memory %s, ticks %d after %d", memory, ticks, before)
				}
				t.Logf("%s MB: the program did not run for %s", size, time.Duration(gap))
				for side, entry := range map[journal.Side]handover.Entry{journal.Source: handover.EntryMoved, journal.Destination: handover.EntryRunning} {
					if s, err := journal.Read(w.src.JournalDir, token, side); err != nil || s.Entry != entry {
						t.Errorf("the %s's journal says %q, %v", side, s.Entry, err)
					}
				}
				// The same token moves nothing again.
				if err := w.await("a replay", w.move(t.Context(), to, w.address(token))); err == nil || !strings.Contains(err.Error(), "journal already") {
					t.Errorf("a replayed token: %v", err)
				}
				if !to.runs() {
					t.Error("a refused move has harmed the container")
				}
				from = to
			}
		})
	}
}

// TestRepeatedPagesGoOverOnce: of a program whose pages are copies of a few, those
// few cross the network.
func TestRepeatedPagesGoOverOnce(t *testing.T) {
	const megabytes, different, most = "64", "500", 16 << 20
	w := newWorld(t, megabytes, "0", different)
	from := w.source()
	token := wire.NewToken()
	to, arrived := w.destination(t.Context(), token)
	if err := w.await("the move", w.move(t.Context(), from, w.address(token))); err != nil {
		t.Fatal(err)
	}
	if err := w.await("the arrival", arrived); err != nil {
		t.Fatal(err)
	}
	if _, _, memory := to.report(); memory != "ok" {
		t.Errorf("memory %s", memory)
	}
	manager, err := w.src.manager(w.namespace())
	w.must(err)
	list, err := manager.Store().List()
	w.must(err)
	sent := uint64(0)
	for _, s := range list {
		if s.Container == from.name {
			sent = s.Progress.Bytes
		}
	}
	t.Logf("%d bytes of %s MB", sent, megabytes)
	if sent == 0 || sent > most {
		t.Errorf("%d bytes have crossed for %s different pages", sent, different)
	}
}

// TestFaultWalk kills either engine at every step that the other side, or the
// journal, can see. Each time exactly one copy runs afterwards.
func TestFaultWalk(t *testing.T) {
	w := newWorld(t, "1")
	record := filepath.Join(w.dir, "steps")
	t.Cleanup(func() { fault(t, "") })
	fault(t, "record "+record)
	from := w.source()
	token := wire.NewToken()
	to, arrived := w.destination(t.Context(), token)
	if err := w.await("the recorded move", w.move(t.Context(), from, w.address(token))); err != nil {
		t.Fatal(err)
	}
	if err := w.await("the recorded arrival", arrived); err != nil {
		t.Fatal(err)
	}
	fault(t, "")
	b, err := os.ReadFile(record)
	w.must(err)
	var steps []string
	for line := range strings.Lines(string(b)) {
		_, step, _ := strings.Cut(strings.TrimSpace(line), "\t")
		steps = append(steps, step)
	}
	t.Logf("the recorded move:\n%s", b)
	for _, must := range []string{
		"source: done", "destination: done", "source: PREPARED heard", "source: READY heard", "source: COMMITTED written", "source: COMMIT sent", "source: RUNNING heard", "source: MOVED written",
		"destination: PREPARED sent", "destination: READY sent", "destination: COMMIT heard", "destination: COMMITTED written", "destination: RUNNING written", "destination: RUNNING sent",
	} {
		if !slices.Contains(steps, must) {
			t.Errorf("no step is called %q", must)
		}
	}
	slices.Sort(steps)
	steps = slices.Compact(steps)
	t.Logf("%d steps", len(steps))
	for _, step := range steps {
		if !t.Run(step, func(t *testing.T) {
			w.t = t
			to = w.dieAt(to, step)
		}) {
			break
		}
	}
	w.t = t
}

// TestFaultsOfTrees: the steps around the point of no return, for a container of
// several processes: all of a copy run, or none.
func TestFaultsOfTrees(t *testing.T) {
	w := newWorld(t, "1", "3")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	for _, step := range []string{
		"none", "source: sealed", "source: COMMITTED written", "source: COMMIT sent", "source: RUNNING heard", "source: MOVED written",
		"destination: READY sent", "destination: COMMIT heard", lost, "destination: let go", "destination: RUNNING written",
	} {
		if !t.Run(step, func(t *testing.T) {
			w.t = t
			from = w.dieAt(from, step)
		}) {
			break
		}
	}
	w.t = t
}

// lost is the one step at which the destination cannot tell whether a task ran:
// its journal says that they are being let go, and they died with it.
const lost = "destination: COMMITTED written"

// dieAt moves a container whose engine dies at a step, and returns what runs.
func (w *world) dieAt(from *copy, step string) *copy {
	t := w.t
	fault(t, "kill "+step)
	defer fault(t, "")
	before, _, _ := from.report()
	token := wire.NewToken()
	to, arrived := w.destination(w.root.Context(), token)
	moved := w.move(w.root.Context(), from, w.address(token))
	if step == lost {
		w.awaitEntry(token, journal.Destination, handover.EntryLost)
		if from.runs() || to.runs() {
			t.Errorf("in doubt, the source runs: %v, the copy runs: %v", from.runs(), to.runs())
		}
		w.awaitDoubt(token, "LOST")
		w.must(journal.Force(w.src.JournalDir, token))
	}
	runs := w.settled(from, to, before, moved, arrived, token)
	w.awaitDoubt(token, "")
	if (runs == to) != slices.Contains(decided, step) {
		t.Errorf("%s runs", runs.name)
	}
	return runs
}

// decided are the steps behind which the copy is the container.
var decided = []string{
	"none", "source: COMMIT sent", "source: RUNNING heard", "source: MOVED written", "source: decided", "source: cleaning", "source: done",
	"destination: let go", "destination: running", "destination: RUNNING written", "destination: RUNNING sent", "destination: done",
}

func (w *world) journalOf(token wire.Token) string {
	out := ""
	for _, side := range []journal.Side{journal.Source, journal.Destination} {
		s, err := journal.Read(w.src.JournalDir, token, side)
		if err != nil {
			out += string(side) + " none "
			continue
		}
		out += string(side) + " " + string(s.Entry) + " "
	}
	return out
}

// awaitDoubt waits until the status of a source's request says what the destination
// has answered, which it returns, or, with nothing, that nothing is in doubt.
func (w *world) awaitDoubt(token wire.Token, answer string) *request.Status {
	w.t.Helper()
	m, err := w.src.manager(w.namespace())
	w.must(err)
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		all, err := m.Store().List()
		w.must(err)
		said := ""
		var in *request.Status
		for _, st := range all {
			if st.Token == token.String() && st.Doubt != nil {
				said, in = st.Doubt.Answer, st
			}
		}
		if said == answer {
			return in
		}
		if time.Now().After(end) {
			w.t.Fatalf("in doubt, %q was answered; want %q", said, answer)
		}
	}
}

func (w *world) awaitEntry(token wire.Token, side journal.Side, entry handover.Entry) {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		s, err := journal.Read(w.src.JournalDir, token, side)
		if err == nil && s.Entry == entry {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("the %s's journal says %q, %v; want %q", side, s.Entry, err, entry)
		}
	}
}
