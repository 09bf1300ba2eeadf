// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// world is everything an event touches, faked: it keeps the truth about the
// tasks and the medium, traces each call, and injects what a story asks for.
type world struct {
	mu    sync.Mutex
	trace []string
	calls int
	tally map[string]int // calls per name
	hurts []*hurt
	over  chan struct{} // closed when the test is over: ends the deaf calls
	quit  context.CancelCauseFunc

	// The truth.
	tasks      map[record.ProcessID]taskState
	order      []record.ProcessID
	appear     map[int]record.ProcessID // a process that appears at the nth hold
	vanish     map[int]record.ProcessID
	holds      int
	frozen     bool
	sealed     bool
	committed  bool // a task that runs now would be a second copy
	violations []string
	ran        bool // import: some task ran
	resting    bool // the application waits to be woken

	pushed  []*record.Record
	flushed int // records that are safe
	closed  int
	popped  int
	open    int // records popped and not yet released
	damaged map[int]bool
	dest    bool // Hold lists a frame and freezes nothing
}

type taskState string

const (
	running taskState = "running"
	heldNow taskState = "held"
	ended   taskState = "ended"
	frame   taskState = "frame"
)

// hurt is one injected misbehaviour.
type hurt struct {
	name string // of the call, or empty
	nth  int    // which of the calls of that name, from 1; 0: each
	at   int    // index among all calls, -1: any
	kind string // error, panic, cancel, stall, deaf, delay, gone, goexit, after
	d    time.Duration
	used bool
}

var errInjected = errors.New("injected")

func newWorld(ids ...record.ProcessID) *world {
	w := &world{
		over: make(chan struct{}), tally: map[string]int{}, tasks: map[record.ProcessID]taskState{}, order: ids,
		appear: map[int]record.ProcessID{}, vanish: map[int]record.ProcessID{}, damaged: map[int]bool{},
	}
	for _, id := range ids {
		w.tasks[id] = running
	}
	return w
}

// call traces a call, lets a hurt act, and only then the effect.
func (w *world) call(ctx context.Context, name string, effect func() error) error {
	w.mu.Lock()
	idx := w.calls
	w.calls++
	w.tally[name]++
	h := w.match(name, idx)
	if h != nil && h.kind == "stall" && ctx.Done() == nil {
		h.kind = "deaf" // a call without an end to wait for
	}
	note := name
	if h != nil {
		note += "  <- " + h.kind
	}
	w.trace = append(w.trace, note)
	w.mu.Unlock()
	if h != nil {
		switch h.kind {
		case "error":
			return errInjected
		case "gone":
			return fmt.Errorf("no such process: %w", ErrGone)
		case "panic":
			panic("injected panic")
		case "cancel":
			w.quit(context.Canceled)
		case "stall":
			<-ctx.Done()
			return ctx.Err()
		case "deaf":
			<-w.over
			return errInjected
		case "late": // ignores the context for a while, then succeeds
			time.Sleep(h.d)
		case "delay":
			select {
			case <-time.After(h.d):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if effect == nil {
		return nil
	}
	return effect()
}

func (w *world) match(name string, idx int) *hurt {
	for _, h := range w.hurts {
		if h.used && h.nth != 0 {
			continue
		}
		if h.at == idx || (h.at < 0 && h.name == name && (h.nth == 0 || h.nth == w.tally[name])) {
			h.used = true
			return h
		}
	}
	return nil
}

func (w *world) note(f string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf(f, a...))
}

// container and constructor.

func (w *world) Hold(ctx context.Context) (ids []record.ProcessID, err error) {
	err = w.call(ctx, "hold", func() error {
		w.frozen = !w.dest
		w.holds++
		if id, ok := w.appear[w.holds]; ok {
			w.order = append(w.order, id)
			w.tasks[id] = running
		}
		if id, ok := w.vanish[w.holds]; ok {
			w.order = slices.DeleteFunc(w.order, func(o record.ProcessID) bool { return o == id })
			w.tasks[id] = ended
		}
		ids = slices.Clone(w.order)
		return nil
	})
	return ids, err
}

func (w *world) List(ctx context.Context) (ids []record.ProcessID, err error) {
	err = w.call(ctx, "list", func() error { ids = slices.Clone(w.order); return nil })
	return ids, err
}

func (w *world) Seal(ctx context.Context) error {
	return w.call(ctx, "seal", func() error { w.sealed = true; return nil })
}

func (w *world) Release(ctx context.Context) error {
	return w.call(ctx, "release", func() error { w.frozen, w.sealed = false, false; w.check(); return nil })
}

// check notes a second copy: a source's task that could run after the decision.
func (w *world) check() {
	if !w.committed || w.frozen {
		return
	}
	for id, s := range w.tasks {
		if s != ended {
			w.violations = append(w.violations, fmt.Sprintf("process %d is %s and thawed after the decision", id, s))
		}
	}
}

func (w *world) Process(id record.ProcessID) Constructor { return task{w, id} }

type task struct {
	w  *world
	id record.ProcessID
}

func (t task) Setup(ctx context.Context) error {
	return t.w.call(ctx, fmt.Sprintf("setup %d", t.id), func() error { t.w.tasks[t.id] = heldNow; return nil })
}

func (t task) Restart(ctx context.Context) error {
	return t.w.call(ctx, fmt.Sprintf("restart %d", t.id), func() error {
		if t.w.committed {
			t.w.violations = append(t.w.violations, fmt.Sprintf("process %d restarted after the decision", t.id))
		}
		if t.w.tasks[t.id] != heldNow {
			t.w.violations = append(t.w.violations, fmt.Sprintf("process %d restarted while %s", t.id, t.w.tasks[t.id]))
		}
		t.w.tasks[t.id] = running
		t.w.ran = true
		return nil
	})
}

func (t task) Cleanup(ctx context.Context) error {
	return t.w.call(ctx, fmt.Sprintf("cleanup %d", t.id), func() error { t.w.tasks[t.id] = ended; return nil })
}

// the application.

func (w *world) quiesce(ctx context.Context) error {
	w.mu.Lock()
	w.resting = true // it may have been asked, whatever becomes of the call
	w.mu.Unlock()
	return w.call(ctx, "quiesce", nil)
}

func (w *world) wake(ctx context.Context, cause error) error {
	name := "wake"
	if cause != nil {
		name += ": it failed"
	}
	return w.call(ctx, name, func() error { w.resting = false; return nil })
}

// medium.

func (w *world) PushData(ctx context.Context, r *record.Record) error {
	c := *r
	c.Payload = slices.Clone(r.Payload)
	return w.call(ctx, "push "+r.Header.String(), func() error { w.pushed = append(w.pushed, &c); return nil })
}

func (w *world) PopData(ctx context.Context) (r *record.Record, release func(), err error) {
	err = w.call(ctx, "pop", func() error {
		if w.popped == len(w.pushed) {
			return io.EOF
		}
		c := *w.pushed[w.popped]
		if w.damaged[w.popped] {
			c.Sum ^= 1
		}
		w.popped++
		w.open++
		r = &c
		return nil
	})
	var once sync.Once
	return r, func() { once.Do(func() { w.mu.Lock(); w.open--; w.mu.Unlock() }) }, err
}

func (w *world) Command(context.Context, Command) (Command, error) {
	return Command{}, errors.ErrUnsupported
}

func (w *world) Flush(ctx context.Context) error {
	return w.call(ctx, "flush", func() error { w.flushed = len(w.pushed); return nil })
}

func (w *world) Close() error {
	return w.call(context.Background(), "close", func() error { w.closed++; return nil })
}

// status lines at the end of a story.
func (w *world) truth() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, id := range sortedKeys(w.tasks) {
		fmt.Fprintf(&b, "process %d %s, ", id, w.tasks[id])
	}
	state := "thawed"
	if w.frozen {
		state = "frozen"
	}
	if w.sealed {
		state = "sealed"
	}
	fmt.Fprintf(&b, "container %s, %d of %d records safe", state, w.flushed, len(w.pushed))
	return b.String()
}

func sortedKeys(m map[record.ProcessID]taskState) []record.ProcessID {
	var ids []record.ProcessID
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
