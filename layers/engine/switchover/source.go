// SPDX-License-Identifier: Apache-2.0

package switchover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/spec/record"
)

const (
	// silence is how long a source that has sent COMMIT waits on its link before
	// it asks on another connection.
	silence = 2 * time.Second
	// patience is how long it goes on asking by itself; afterwards that is its
	// supervisor's.
	patience = 15 * time.Second
	// askEvery is the pause between two questions, askSlowly that behind patience.
	askEvery  = 100 * time.Millisecond
	askSlowly = time.Second
	// overdue is what is told of the destination's answer before it is asked again.
	overdue = "it has not answered COMMIT"
	// lastWord bounds the sending of a message that need not arrive.
	lastWord = time.Second
)

// Source is the source's side of one switch. Its methods are called by control,
// one after the other.
type Source struct {
	link    Link
	journal Journal
	ask     func(context.Context) (handover.Message, error)
	cancel  context.CancelCauseFunc
	in      inbox
	// Doubts, if it is set, is told when the answer to COMMIT is overdue, of each answer
	// to the questions that follow, and with nothing when the outcome is known. Set it
	// before Switch.
	Doubts func(answer string)
	// Needed reports whether a copy that runs needs what only this engine has, which then
	// asks for as long as it takes: behind its end nobody could bring that any more. nil:
	// it does not. Set it before Switch.
	Needed func() bool
	// Forced reports whether a person has freed the container, which ends the asking. nil:
	// nobody asks.
	Forced func() bool

	standing chan struct{} // closed when the destination is prepared
	once     sync.Once

	asked bool // the answer to COMMIT is overdue

	mu    sync.Mutex
	state handover.Source // guarded by mu
	// reason that the destination has given, and why we give up, for it; guarded by
	// mu.
	reason, why string
}

// NewSource listens on the link. ask asks the destination's host over another
// connection (resolve.Ask); cancel ends the export if the destination gives up
// before the switch.
func NewSource(l Link, j Journal, ask func(context.Context) (handover.Message, error), cancel context.CancelCauseFunc) *Source {
	s := &Source{link: l, journal: j, ask: ask, cancel: cancel, in: make(inbox, inboxSize), standing: make(chan struct{})}
	l.Handle(receiver, s.hear)
	return s
}

// hear takes the destination's messages. It does not block.
func (s *Source) hear(_ context.Context, c record.Command) (record.Command, error) {
	if c.Verb == prepared {
		s.once.Do(func() { close(s.standing) })
		return record.Command{}, nil
	}
	m := parse(c.Verb)
	reason := string(c.Body[:min(len(c.Body), maxReason)])
	s.in.put(said{m, reason})
	s.mu.Lock()
	before := s.state.Entry == handover.EntryNone
	s.mu.Unlock()
	if m == handover.Aborted && before {
		s.cancel(&PeerError{Side: "destination", Reason: reason})
	}
	return record.Command{}, nil
}

// Prepare returns when the destination's frame stands.
func (s *Source) Prepare(ctx context.Context) error {
	select {
	case <-s.standing:
		point("source: PREPARED heard")
		return nil
	case <-s.link.Over():
		return fmt.Errorf("wait for the destination: %w", s.broken())
	case <-ctx.Done():
		return fmt.Errorf("wait for the destination: %w", context.Cause(ctx))
	}
}

func (s *Source) broken() error {
	if err := s.link.Err(); err != nil {
		return err
	}
	return errors.New("the destination has ended the stream")
}

// Switch is control's point of decision: the container is sealed and everything
// flushed.
func (s *Source) Switch(ctx context.Context) (control.Verdict, error) {
	point("source: sealed")
	if err := s.input(ctx, handover.Prepared); err != nil {
		return s.fail(ctx, err)
	}
	for s.entry() == handover.EntryNone {
		got, err := s.next(ctx)
		if err == nil {
			err = s.message(ctx, got)
		}
		if err != nil {
			return s.fail(ctx, err)
		}
	}
	if s.entry() == handover.EntryCommitted {
		return s.decided(ctx)
	}
	return control.VerdictAbort, s.gaveUp()
}

func (s *Source) gaveUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &PeerError{Side: "destination", Reason: s.reason}
}

// next waits for a message before COMMIT. What came before the link broke
// counts.
func (s *Source) next(ctx context.Context) (said, error) {
	select {
	case got := <-s.in:
		return got, nil
	default:
	}
	select {
	case got := <-s.in:
		return got, nil
	case <-ctx.Done():
		return said{}, context.Cause(ctx)
	case <-s.link.Over():
	}
	select {
	case got := <-s.in:
		return got, nil
	default:
		return said{}, s.broken()
	}
}

// fail ends a switch in which COMMIT was not sent. If it was (a journal that
// could be written and a message that could not be sent), it is in doubt.
func (s *Source) fail(ctx context.Context, cause error) (control.Verdict, error) {
	if s.entry() != handover.EntryNone {
		return control.VerdictDoubt, cause
	}
	return control.VerdictAbort, errors.Join(cause, s.giveUp(ctx, cause))
}

// Failing tells the destination why the move ends, if it was not decided.
func (s *Source) Failing(ctx context.Context, cause error) {
	if s.entry() == handover.EntryNone {
		_ = s.giveUp(ctx, cause) // nobody recovers by the journal of an engine that tells its end
	}
}

func (s *Source) giveUp(ctx context.Context, cause error) error {
	s.mu.Lock()
	s.why = cause.Error()
	s.mu.Unlock()
	return s.input(ctx, handover.Failed)
}

// decided follows COMMIT: nothing but the destination's word, or a person's,
// decides now. A cancel comes too late, and does not shorten the asking either: a
// copy that runs may need what this engine has left of its memory.
func (s *Source) decided(ctx context.Context) (control.Verdict, error) {
	ctx = context.WithoutCancel(ctx)
	if s.Needed == nil || !s.Needed() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	begun := time.Now()
	var last error
	for {
		switch s.entry() {
		case handover.EntryMoved:
			s.doubt("")
			return control.VerdictCommit, nil
		case handover.EntryKept:
			s.doubt("")
			return control.VerdictAbort, s.gaveUp()
		}
		if s.Forced != nil && s.Forced() {
			return control.VerdictDoubt, errors.Join(errors.New("COMMIT was sent and not answered, and a person has freed the container"), last)
		}
		pause := askEvery
		if time.Since(begun) > patience {
			pause = askSlowly
		}
		got, err := s.answer(ctx, pause)
		if err != nil {
			last = err
		}
		if ctx.Err() != nil || got.message == handover.Lost {
			if got.message == handover.Lost {
				last = errors.New("the destination's engine died while it let the copy go: the copy may have run, and is gone (mig abort --force lets this container go on)")
				s.doubt(handover.Lost.String())
			}
			return control.VerdictDoubt, errors.Join(errors.New("COMMIT was sent and not answered"), last)
		}
		if err := s.message(ctx, got); err != nil {
			last = err
		}
	}
}

// answer waits for a message on the link, and, when that is silent or broken,
// asks on another connection.
func (s *Source) answer(ctx context.Context, pause time.Duration) (said, error) {
	t := time.NewTimer(silence)
	defer t.Stop()
	select {
	case got := <-s.in:
		return got, nil
	default:
	}
	select {
	case got := <-s.in:
		return got, nil
	case <-s.link.Over():
		select {
		case got := <-s.in: // it came before the end
			return got, nil
		default:
		}
	case <-t.C:
	case <-ctx.Done():
		return said{}, nil
	}
	if !s.asked {
		s.asked = true
		s.doubt(overdue)
	}
	m, err := s.ask(ctx)
	switch {
	case err != nil:
		s.doubt(err.Error())
	case m == handover.Ready:
		s.doubt(m.String())
	default:
		return said{message: m, reason: "its engine has ended, see the log of its host"}, nil
	}
	select {
	case got := <-s.in:
		return got, nil
	case <-ctx.Done():
	case <-time.After(pause):
	}
	return said{}, err
}

func (s *Source) doubt(answer string) {
	if s.Doubts != nil {
		s.Doubts(answer)
	}
}

func (s *Source) entry() handover.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Entry
}

func (s *Source) input(ctx context.Context, in handover.Input) error {
	s.mu.Lock()
	state, actions := s.state.Input(in)
	s.mu.Unlock()
	return s.perform(ctx, state, actions)
}

func (s *Source) message(ctx context.Context, got said) error {
	if got.message == 0 {
		return nil
	}
	point("source: %s heard", got.message)
	s.mu.Lock()
	if got.reason != "" {
		s.reason = got.reason
	}
	state, actions := s.state.Message(got.message)
	s.mu.Unlock()
	return s.perform(ctx, state, actions)
}

// perform does the actions in their order. The state counts as soon as its
// journal is written, so that a failure to write leaves the state before it.
// Thaw and End are control's, which follows the verdict.
func (s *Source) perform(ctx context.Context, state handover.Source, actions []handover.Action) error {
	for _, a := range actions {
		if a.Verb != handover.Journal {
			continue
		}
		if err := s.journal.Write(a.Entry); err != nil {
			return err
		}
		point("source: %s written", a.Entry)
	}
	s.mu.Lock()
	s.state = state
	s.mu.Unlock()
	for _, a := range actions {
		if a.Verb != handover.Send {
			continue
		}
		// Whether it arrives is nobody's promise; a broken link is noticed where an
		// answer is waited for.
		s.mu.Lock()
		why := s.why
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
		_ = tell(ctx, s.link, a.Message, why)
		cancel()
		point("source: %s sent", a.Message)
	}
	return nil
}
