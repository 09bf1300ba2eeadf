// SPDX-License-Identifier: Apache-2.0

package switchover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/medium/stream"
	"github.com/io-mig/mig/spec/record"
)

// world is a link and a journal that note what happens, in order.
type world struct {
	mu      sync.Mutex
	trace   []string
	handler stream.Handler
	over    chan struct{}
	// broken: what is journaled or sent fails.
	brokenJournal handover.Entry
	brokenLink    bool
	answers       []handover.Message // of ask, the last one stays; 0 is an error
}

func newWorld() *world { return &world{over: make(chan struct{})} }

func (w *world) note(f string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf(f, a...))
}

func (w *world) Handle(_ string, h stream.Handler) { w.handler = h }

func (w *world) Tell(_ context.Context, c record.Command) error {
	w.note("send %s", c.Verb)
	if w.brokenLink {
		return errors.New("link is broken")
	}
	return nil
}

func (w *world) Over() <-chan struct{} { return w.over }
func (w *world) Err() error            { return errors.New("cut") }

func (w *world) Write(e handover.Entry) error {
	if e == w.brokenJournal {
		return errors.New("no space")
	}
	w.note("journal %s", e)
	return nil
}

func (w *world) ask(context.Context) (handover.Message, error) {
	w.note("ask")
	m := w.answers[0]
	if len(w.answers) > 1 {
		w.answers = w.answers[1:]
	}
	if m == 0 {
		return 0, errors.New("nobody is there")
	}
	return m, nil
}

func (w *world) say(verbs ...string) {
	for _, v := range verbs {
		_, _ = w.handler(context.Background(), record.Command{To: receiver, Verb: v, Body: []byte("because")})
	}
}

func (w *world) told() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(slices.Compact(slices.Clone(w.trace)), ", ")
}

// TestSource: what the destination says, or does not say, decides; time is
// synctest's.
func TestSource(t *testing.T) {
	for name, test := range map[string]struct {
		said    []string // before the switch
		answers []handover.Message
		cut     bool // after the switch began
		cancel  bool
		journal handover.Entry // that cannot be written
		link    bool           // nothing can be sent
		verdict control.Verdict
		trace   string
		text    string
		doubts  []string // nil: the outcome was never in doubt
	}{
		"as it should be": {said: []string{"READY", "RUNNING"}, verdict: control.VerdictCommit,
			trace: "journal COMMITTED, send COMMIT, journal MOVED"},
		"everything twice": {said: []string{"READY", "READY", "RUNNING", "RUNNING"}, verdict: control.VerdictCommit,
			trace: "journal COMMITTED, send COMMIT, journal MOVED"},
		"RUNNING without COMMIT is no RUNNING": {said: []string{"RUNNING", "LOST", "nonsense"}, cut: true, verdict: control.VerdictAbort,
			trace: "journal KEPT, send ABORT", text: "cut"},
		"refused":          {said: []string{"ABORTED"}, verdict: control.VerdictAbort, trace: "journal KEPT, send ABORT", text: "because"},
		"cut before READY": {cut: true, verdict: control.VerdictAbort, trace: "journal KEPT, send ABORT", text: "cut"},
		"cancelled":        {cancel: true, verdict: control.VerdictAbort, trace: "journal KEPT, send ABORT", text: "canceled"},
		"cut after COMMIT, it runs": {said: []string{"READY"}, cut: true, answers: []handover.Message{0, handover.Ready, handover.Running},
			verdict: control.VerdictCommit, trace: "journal COMMITTED, send COMMIT, ask, journal MOVED",
			doubts: []string{overdue, "nobody is there", "READY", ""}},
		"cut after COMMIT, it never will": {said: []string{"READY"}, cut: true, answers: []handover.Message{handover.Aborted},
			verdict: control.VerdictAbort, trace: "journal COMMITTED, send COMMIT, ask, journal KEPT", doubts: []string{overdue, ""}},
		"COMMIT cannot be sent, it runs all the same": {said: []string{"READY"}, link: true, cut: true, answers: []handover.Message{handover.Running},
			verdict: control.VerdictCommit, trace: "journal COMMITTED, send COMMIT, ask, journal MOVED", doubts: []string{overdue, ""}},
		"silence after COMMIT": {said: []string{"READY"}, answers: []handover.Message{handover.Running},
			verdict: control.VerdictCommit, trace: "journal COMMITTED, send COMMIT, ask, journal MOVED", doubts: []string{overdue, ""}},
		"lost": {said: []string{"READY", "LOST"}, verdict: control.VerdictDoubt, trace: "journal COMMITTED, send COMMIT", text: "abort --force", doubts: []string{"LOST"}},
		"nobody answers": {said: []string{"READY"}, cut: true, answers: []handover.Message{0},
			verdict: control.VerdictDoubt, trace: "journal COMMITTED, send COMMIT, ask", text: "nobody is there", doubts: []string{overdue, "nobody is there"}},
		"COMMITTED cannot be written": {said: []string{"READY"}, journal: handover.EntryCommitted, verdict: control.VerdictAbort,
			trace: "journal KEPT, send ABORT", text: "no space"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.answers, w.brokenJournal, w.brokenLink = test.answers, test.journal, test.link
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				// The destination's refusal ends the context, too, in real life.
				s := NewSource(w, w, w.ask, func(error) {})
				var doubts []string
				s.Doubts = func(answer string) {
					if len(doubts) > 0 || answer != "" { // known without a doubt is no news
						doubts = append(doubts, answer)
					}
				}
				w.say(test.said...)
				time.AfterFunc(time.Second, func() {
					if test.cut {
						close(w.over)
					}
					if test.cancel {
						cancel(context.Canceled)
					}
				})
				begun := time.Now()
				v, err := s.Switch(ctx)
				if v != test.verdict || w.told() != test.trace {
					t.Errorf("verdict %d, %v\n%s", v, err, w.told())
				}
				if test.text != "" && (err == nil || !strings.Contains(err.Error(), test.text)) {
					t.Errorf("error %v", err)
				}
				if doubts = slices.Compact(doubts); !slices.Equal(doubts, test.doubts) {
					t.Errorf("in doubt: %q", doubts)
				}
				if d := time.Since(begun); d > patience+silence {
					t.Errorf("it took %s", d)
				}
			})
		})
	}
}

// TestNeeded: a source whose engine has what the copy lacks asks for as long as it takes,
// or until a person decides otherwise.
func TestNeeded(t *testing.T) {
	const long = 10 * time.Minute
	for name, test := range map[string]struct {
		forced  bool
		verdict control.Verdict
		trace   string
	}{
		"it answers":         {false, control.VerdictCommit, "journal COMMITTED, send COMMIT, ask, journal MOVED"},
		"it is freed before": {true, control.VerdictDoubt, "journal COMMITTED, send COMMIT, ask"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.answers = []handover.Message{0}
				ctx, cancel := context.WithCancel(t.Context())
				cancelled := time.AfterFunc(time.Minute, cancel) // which decides nothing
				defer cancelled.Stop()
				s := NewSource(w, w, w.ask, func(error) {})
				begun := time.Now()
				s.Needed = func() bool { return true }
				s.Forced = func() bool {
					late := time.Since(begun) > long
					if late && !test.forced {
						w.answers = []handover.Message{handover.Running}
					}
					return late && test.forced
				}
				w.say("READY")
				close(w.over)
				v, err := s.Switch(ctx)
				if v != test.verdict || w.told() != test.trace {
					t.Errorf("verdict %d, %v\n%s", v, err, w.told())
				}
				if d := time.Since(begun); d < long {
					t.Errorf("after %s", d)
				}
			})
		})
	}
}

// TestPrepare waits for PREPARED, and not for ever.
func TestPrepare(t *testing.T) {
	w := newWorld()
	var gaveUp error
	s := NewSource(w, w, w.ask, func(err error) { gaveUp = err })
	w.say(prepared, prepared)
	if err := s.Prepare(t.Context()); err != nil {
		t.Error(err)
	}
	w.say("ABORTED")
	var peer *PeerError
	if !errors.As(gaveUp, &peer) || peer.Reason != "because" {
		t.Errorf("a destination that gives up while state travels: %v", gaveUp)
	}
	w = newWorld()
	s = NewSource(w, w, w.ask, func(error) {})
	close(w.over)
	if err := s.Prepare(t.Context()); err == nil {
		t.Error("a destination that is gone is prepared")
	}
}

// TestDestination: nothing runs without COMMIT, nothing after an end, and what is
// said was written before.
func TestDestination(t *testing.T) {
	for name, test := range map[string]struct {
		said    []string
		cut     bool
		journal handover.Entry
		release bool // Ready succeeds
		trace   string
	}{
		"as it should be": {said: []string{"COMMIT"}, release: true,
			trace: "send READY, journal COMMITTED, journal RUNNING, send RUNNING"},
		"COMMIT twice": {said: []string{"COMMIT", "COMMIT"}, release: true,
			trace: "send READY, journal COMMITTED, journal RUNNING, send RUNNING"},
		"aborted":      {said: []string{"ABORT"}, trace: "send READY, journal ABORTED, send ABORTED"},
		"nonsense":     {said: []string{"READY", "RUNNING", "x"}, cut: true, trace: "send READY, journal ABORTED, send ABORTED"},
		"cut":          {cut: true, trace: "send READY, journal ABORTED, send ABORTED"},
		"cannot write": {said: []string{"COMMIT"}, journal: handover.EntryCommitted, release: true, trace: "send READY, journal ABORTED, send ABORTED"},
	} {
		w := newWorld()
		w.brokenJournal = test.journal
		d := NewDestination(w, w, func(error) {})
		w.say(test.said...)
		if test.cut {
			close(w.over)
		}
		err := d.Ready(t.Context())
		if (err == nil) != test.release {
			t.Errorf("%s: ready: %v", name, err)
		}
		if err == nil {
			err = d.Releasing()
		}
		if err == nil {
			err = d.Running(t.Context())
		} else {
			d.Failing(t.Context(), err)
			d.Failing(t.Context(), err)
		}
		if w.told() != test.trace {
			t.Errorf("%s: %v\n%s", name, err, w.told())
		}
	}
	w := newWorld()
	d := NewDestination(w, w, func(error) {})
	if d.Releasing() == nil {
		t.Error("a copy is let go without a COMMIT")
	}
}

// TestPartlyRun: a copy of which a part may have run is lost, not aborted.
func TestPartlyRun(t *testing.T) {
	w := newWorld()
	d := NewDestination(w, w, func(error) {})
	w.say("COMMIT")
	if err := errors.Join(d.Ready(t.Context()), d.Releasing()); err != nil {
		t.Fatal(err)
	}
	d.Failing(t.Context(), errors.New("the second task is stuck"))
	if want := "send READY, journal COMMITTED, journal LOST, send LOST"; w.told() != want {
		t.Error(w.told())
	}
}

// TestNotRun: one of which the engine knows that nothing has run is aborted, although
// COMMITTED was written.
func TestNotRun(t *testing.T) {
	for letGo, want := range map[bool]string{
		false: "send READY, journal COMMITTED, journal ABORTED, send ABORTED",
		true:  "send READY, journal COMMITTED, journal LOST, send LOST",
	} {
		w := newWorld()
		d := NewDestination(w, w, func(error) {})
		d.LetGo = func() bool { return letGo }
		w.say("COMMIT")
		if err := errors.Join(d.Ready(t.Context()), d.Releasing()); err != nil {
			t.Fatal(err)
		}
		d.Failing(t.Context(), errors.New("the first task is dead"))
		d.Failing(t.Context(), errors.New("and so are others"))
		if w.told() != want {
			t.Errorf("let go: %v: %s", letGo, w.told())
		}
	}
}

// TestCommitUnsupervised: the same of a shim whose death nobody has told us of yet,
// when COMMIT is heard and when its actions are about to be written down.
func TestCommitUnsupervised(t *testing.T) {
	for _, looks := range []int{0, 1} {
		w := newWorld()
		d := NewDestination(w, w, func(error) {})
		gone := errors.New("the shim is gone")
		d.Supervised = func() error {
			if looks--; looks < 0 {
				return gone
			}
			return nil
		}
		w.say("COMMIT")
		err := d.Ready(t.Context())
		if err == nil {
			err = d.Releasing()
		}
		if !errors.Is(err, gone) || looks != -1 {
			t.Fatalf("released: %v, %d looks are left", err, looks)
		}
		d.Failing(t.Context(), err)
		if want := "send READY, journal ABORTED, send ABORTED"; w.told() != want {
			t.Error(w.told())
		}
	}
}

// TestCommitTooLate: a destination whose shim has died meanwhile, which ends the
// context, does not become the only copy: the source goes on.
func TestCommitTooLate(t *testing.T) {
	w := newWorld()
	d := NewDestination(w, w, func(error) {})
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the shim is gone")
	d.Meanwhile = func() error { // READY was said
		w.say("COMMIT")
		cancel(gone)
		return nil
	}
	err := d.Ready(ctx)
	if !errors.Is(err, gone) {
		t.Fatalf("ready: %v", err)
	}
	if d.Releasing() == nil {
		t.Error("the copy is let go all the same")
	}
	d.Failing(ctx, err)
	if want := "send READY, journal ABORTED, send ABORTED"; w.told() != want {
		t.Error(w.told())
	}
}
