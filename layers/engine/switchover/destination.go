// SPDX-License-Identifier: Apache-2.0

package switchover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/spec/record"
)

// goodbye bounds how long a destination that runs waits for the source to have
// taken note.
const goodbye = 5 * time.Second

// Destination is the destination's side of one switch. Its methods are called
// by control, one after the other.
type Destination struct {
	// Meanwhile is called when READY was sent, before COMMIT is waited for: for what
	// is to be done anyway and does no harm if ABORT comes. Its error is one of the
	// building, and the copy never runs. May be nil.
	Meanwhile func() error
	// Supervised looks whether our supervisor is there, and says so if it is not: when
	// COMMIT was heard, and again before that is written down. May be nil.
	Supervised func() error
	// LetGo reports whether a task may have run: behind that nobody can say that none
	// has, if the copy fails. nil: one may, from COMMITTED on.
	LetGo func() bool

	link    Link
	journal Journal
	cancel  context.CancelCauseFunc
	in      inbox

	mu sync.Mutex
	// Below: guarded by mu.
	state handover.Destination
	// todo are the actions of COMMIT that were not performed yet.
	todo   []handover.Action
	reason string
}

// NewDestination listens on the link. cancel ends the import if the source gives
// up while it is being built.
func NewDestination(l Link, j Journal, cancel context.CancelCauseFunc) *Destination {
	d := &Destination{link: l, journal: j, cancel: cancel, in: make(inbox, inboxSize)}
	l.Handle(receiver, d.hear)
	return d
}

// hear takes the source's messages. It does not block.
func (d *Destination) hear(_ context.Context, c record.Command) (record.Command, error) {
	m := parse(c.Verb)
	reason := string(c.Body[:min(len(c.Body), maxReason)])
	d.in.put(said{m, reason})
	if m == handover.Abort {
		d.mu.Lock()
		before := d.state.Entry == handover.EntryNone && d.todo == nil
		d.mu.Unlock()
		if before {
			d.cancel(&PeerError{Side: "source", Reason: reason})
		}
	}
	return record.Command{}, nil
}

// Prepared tells the source that the frame stands.
func (d *Destination) Prepared(ctx context.Context) error {
	err := d.link.Tell(ctx, record.Command{To: receiver, Verb: prepared})
	point("destination: PREPARED sent")
	return err
}

// Ready says so and waits for COMMIT. Nothing has run when it returns, and
// nothing is written yet: see Releasing.
func (d *Destination) Ready(ctx context.Context) error {
	if err := d.input(ctx, handover.Prepared); err != nil {
		return err
	}
	if d.Meanwhile != nil {
		if err := d.Meanwhile(); err != nil {
			return err // Failing follows
		}
	}
	for {
		got, err := d.next(ctx)
		if err != nil {
			return err // Failing follows
		}
		point("destination: %s heard", got.message)
		if got.message == handover.Commit {
			if err := d.wanted(ctx); err != nil {
				return err // Failing follows, and says ABORTED
			}
		}
		d.mu.Lock()
		state, actions := d.state.Message(got.message)
		committed := state.Entry == handover.EntryCommitted
		if committed {
			d.todo = actions
		}
		d.reason = got.reason
		d.mu.Unlock()
		switch {
		case committed:
			return nil
		case state.Entry == handover.EntryAborted:
			return errors.Join(&PeerError{Side: "source", Reason: got.reason}, d.perform(ctx, state, actions))
		}
	}
}

// wanted is why the copy must not run, nil if it may: we were cancelled, or our shim
// has died. A copy that nobody looks after would be the only one, and COMMIT obliges
// nobody before it is written down here.
func (d *Destination) wanted(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return d.supervised()
}

func (d *Destination) supervised() error {
	if d.Supervised == nil {
		return nil
	}
	return d.Supervised()
}

func (d *Destination) next(ctx context.Context) (said, error) {
	select {
	case got := <-d.in:
		return got, nil
	default:
	}
	select {
	case got := <-d.in:
		return got, nil
	case <-ctx.Done():
		return said{}, context.Cause(ctx)
	case <-d.link.Over():
	}
	select {
	case got := <-d.in: // it came before the end
		return got, nil
	default:
	}
	if err := d.link.Err(); err != nil {
		return said{}, err
	}
	return said{}, errors.New("the source has ended the stream before the switch")
}

// Releasing is called by the frame immediately before the first task is let go.
func (d *Destination) Releasing() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.todo) == 0 || d.todo[0].Verb != handover.Journal {
		return errors.New("a copy is let go without a COMMIT: defect in mig")
	}
	err := d.supervised() // the last look: what COMMIT begins takes milliseconds
	if err == nil {
		err = d.journal.Write(d.todo[0].Entry)
	}
	if err != nil {
		return fmt.Errorf("nothing was let go: %w", err)
	}
	d.state.Entry = d.todo[0].Entry
	d.todo = d.todo[1:]
	point("destination: %s written", d.state.Entry)
	return nil
}

// Running is called when every task was let go: it writes that down, says so,
// and gives the source time to take note.
func (d *Destination) Running(ctx context.Context) error {
	point("destination: let go")
	d.mu.Lock()
	todo := d.todo
	d.todo = nil
	d.state = d.state.Ran()
	state := d.state
	d.mu.Unlock()
	if len(todo) > 0 && todo[0].Verb == handover.Run {
		todo = todo[1:]
	}
	return d.perform(ctx, state, todo)
}

// Goodbye waits until the source has ended the stream, for a while: what was
// said last would be lost with a connection that is closed too early.
func (d *Destination) Goodbye() {
	select {
	case <-d.link.Over():
	case <-time.After(goodbye):
	}
}

// Failing writes down and says that the copy will never run, or that it may
// have run and is gone.
func (d *Destination) Failing(ctx context.Context, cause error) {
	d.mu.Lock()
	var in handover.Input
	switch d.state.Entry {
	case handover.EntryNone:
		in = handover.Failed
	case handover.EntryCommitted:
		in = handover.PartlyRun
		if d.LetGo != nil && !d.LetGo() {
			in = handover.NotRun
		}
	}
	d.reason = cause.Error()
	d.mu.Unlock()
	if in != 0 {
		_ = d.input(ctx, in)
	}
}

func (d *Destination) input(ctx context.Context, in handover.Input) error {
	d.mu.Lock()
	state, actions := d.state.Input(in)
	d.mu.Unlock()
	return d.perform(ctx, state, actions)
}

// perform does the actions in their order. Run and Discard are control's.
func (d *Destination) perform(ctx context.Context, state handover.Destination, actions []handover.Action) error {
	for _, a := range actions {
		switch a.Verb {
		case handover.Journal:
			if err := d.journal.Write(a.Entry); err != nil {
				return err
			}
			point("destination: %s written", a.Entry)
		case handover.Send:
			d.mu.Lock()
			reason := d.reason
			d.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
			_ = tell(ctx, d.link, a.Message, reason)
			cancel()
			point("destination: %s sent", a.Message)
		}
	}
	d.mu.Lock()
	d.state = state
	d.mu.Unlock()
	return nil
}
