// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim"
)

// move has the engine move one task to a destination that expects it. On an
// error the task is as before. While it is not known whether the copy runs, the
// task stays frozen and move does not return.
func (m *Migrator) move(ctx context.Context, r shim.CheckpointRequest) error {
	to, err := address.ParseMove(r.Image)
	if err != nil {
		return err
	}
	switch {
	case !to.Prepared():
		return fmt.Errorf("%s: no destination has agreed to this move (mig migrate asks it)", r.Image)
	case !r.Exit:
		return errors.New("a container that is moved does not run on here: ask for its exit (ctr tasks checkpoint --exit)")
	case r.Paused:
		return fmt.Errorf("container %s is paused, and its copy would run: resume it first", r.ID)
	}
	manager, err := m.manager(r.Namespace)
	if err != nil {
		return err
	}
	j, err := checkpointJob(r)
	if err != nil {
		return err
	}
	chosen, err := policy.Decode(to.Policies)
	if err != nil {
		return err
	}
	j.Options = policy.Add(j.Options, chosen)
	j.Token, j.Timeout, j.Strategy, j.Journal = to.Token.String(), to.Timeout, to.Strategy, m.journal()
	done, err := m.withApplication(ctx, &j, r)
	if err != nil {
		return err
	}
	defer done()
	putBack, err := keepSpeed(&j, to.AutoConverge)
	if err != nil {
		return err
	}
	h, err := manager.Submit(ctx, j)
	if err != nil {
		return err
	}
	if r.InDoubt != nil {
		h.OnDoubt(r.InDoubt)
	}
	err = h.Wait(context.WithoutCancel(ctx))
	putBack()
	if err == nil {
		return nil
	}
	s := source{r: r, to: to, engine: m.engine(), dir: m.journal(), request: h.ID(), doubt: h.Doubt, since: time.Now(), cause: err}
	d := h.Status().Doubt // the engine's, which could not resolve it
	if d != nil {
		s.since = d.Since
	}
	err = s.settle()
	if d != nil {
		h.Doubt(nil)
	}
	return err
}

func (m *Migrator) journal() string {
	if m.JournalDir != "" {
		return m.JournalDir
	}
	return journal.Dir
}

// source is the source of a move whose engine did not succeed.
type source struct {
	r  shim.CheckpointRequest
	to address.Move
	// engine asks the destination.
	engine *request.ProcessEngine
	dir    string
	// request is ours: a journal of another one belongs to an earlier use of the
	// token, which the engine has refused.
	request string
	// doubt tells others that the container stays frozen, see request.Handle.
	doubt func(*request.Doubt)
	// since when it is in doubt what became of the copy.
	since time.Time
	cause error
	state journal.State
	// promised: COMMIT was written down, and may have been heard.
	promised bool
}

// settle acts on the last entry of the journal (package handover). What the
// engine itself has told to be rolled back runs already.
func (s *source) settle() error {
	var told *job.Failure
	if errors.As(s.cause, &told) && told.End == "rolled back" {
		return errors.Join(s.cause, settle(s.r))
	}
	var err error
	s.state, err = journal.Read(s.dir, s.to.Token, journal.Source)
	if errors.Is(err, fs.ErrNotExist) || err == nil && s.state.Request != s.request {
		return errors.Join(s.cause, settle(s.r)) // the engine did not come so far
	}
	if err != nil {
		// Unreadable: it may say COMMITTED. Asking is harmless.
		slog.Error("the container stays frozen until its destination answers", "container", s.r.ID, "error", err)
		s.state.Entry = handover.EntryCommitted
	}
	if s.state.Entry == handover.EntryMoved && s.state.Left {
		return s.keepLeft()
	}
	s.promised = s.state.Entry == handover.EntryCommitted
	machine, actions := handover.RecoverSource(s.state.Entry)
	if done, err := s.perform(actions); done {
		return err
	}
	return s.resolve(machine)
}

// keepLeft keeps the frozen tasks, whose engine has failed, as long as the copy
// lacks what they hold: until the destination says that it has everything, or
// the container is killed.
func (s *source) keepLeft() error {
	const every = 2 * time.Second
	slog.Error("the copy runs and may wait for state of this container, which stays frozen; kill it when the copy is of no use any more",
		"container", s.r.ID, "token", s.to.Token, "destination", s.to.Host, "error", s.cause)
	told := s.teller(true)
	defer told.over()
	for ; ; time.Sleep(every) {
		if st, err := s.r.Container.Status(); err == nil && st.State == runtime.StateStopped {
			return s.cause
		}
		said, whole, err := s.engine.Ask(context.Background(), s.r.Image)
		if err == nil && said == handover.Running && whole {
			return end(s.r)
		}
		told.answer(spoken(said, err))
	}
}

// teller is for a container that stays frozen now; needed: the copy runs.
func (s *source) teller(needed bool) *teller {
	since := s.since
	if needed {
		since = time.Now()
	}
	return &teller{
		tell: s.doubt, inDoubt: s.r.InDoubt,
		doubt: request.Doubt{Since: since, Destination: s.to.Host, Needed: needed},
	}
}

// teller tells others of a doubt, and of each new answer.
type teller struct {
	tell func(*request.Doubt)
	// inDoubt is the shim's, nil if it does not want to know.
	inDoubt func()
	doubt   request.Doubt
	told    bool
}

func (t *teller) answer(a string) {
	if t.told && t.doubt.Answer == a {
		return
	}
	t.told, t.doubt.Answer = true, a
	d := t.doubt
	t.tell(&d)
	if t.inDoubt != nil {
		t.inDoubt()
	}
}

// over ends the doubt, if anybody was told of it.
func (t *teller) over() {
	if t.told {
		t.tell(nil)
	}
}

// resolve asks the destination until it is known what became of the copy, or
// until a person decides, or the container is gone.
func (s *source) resolve(machine handover.Source) error {
	const slowest = 2 * time.Second
	slog.Warn("COMMIT was sent and not answered: the container stays frozen until its destination answers",
		"container", s.r.ID, "token", s.to.Token, "destination", s.to.Host, "error", s.cause)
	told := s.teller(false)
	defer told.over()
	last := ""
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, slowest) {
		if st, err := s.r.Container.Status(); err == nil && st.State == runtime.StateStopped {
			return errors.Join(s.cause, errors.New("the container was killed before its destination answered"))
		}
		said, news := s.ask()
		if news != last {
			slog.Warn("resolve a move", "container", s.r.ID, "token", s.to.Token, "answer", news)
			last = news
		}
		// What the destination knows counts before what a person thought.
		after, actions := machine.Message(said)
		if after.Entry == machine.Entry && journal.Forced(s.dir, s.to.Token) {
			s.cause = errors.Join(s.cause, errors.New("freed by force"))
			_, actions = machine.Input(handover.Forced)
		}
		// The machine stays as it is: what could not be written down is asked again.
		if done, err := s.perform(actions); done {
			return err
		}
		told.answer(news)
		time.Sleep(pause)
	}
}

// ask returns the destination's word, 0 if it gave none, and what to log.
func (s *source) ask() (handover.Message, string) {
	said, _, err := s.engine.Ask(context.Background(), s.r.Image)
	if err != nil {
		said = 0
	}
	return said, spoken(said, err)
}

// spoken is an answer, or why there is none, for people.
func spoken(said handover.Message, err error) string {
	if err != nil {
		return err.Error()
	}
	return said.String()
}

// perform does the actions of the state machine. done: nothing follows.
func (s *source) perform(actions []handover.Action) (done bool, err error) {
	for _, a := range actions {
		switch a.Verb {
		case handover.Journal:
			next := s.state
			next.Entry, next.Token, next.Side = a.Entry, s.to.Token, journal.Source
			if err := journal.Write(s.dir, next); err != nil {
				slog.Error("journal", "container", s.r.ID, "error", err)
				if s.state.Entry != handover.EntryNone {
					return false, nil // asked again
				}
				// COMMIT was never sent, which is what a journal without an entry says, too.
			}
			s.state = next
		case handover.Thaw:
			if s.promised {
				s.announce()
			}
			return true, errors.Join(s.cause, settle(s.r))
		case handover.End:
			return true, end(s.r)
		}
	}
	return false, nil
}

// announce tells the container's neighbours that it goes on here, before it does: its
// copy, which was about to run, may have told them otherwise.
func (s *source) announce() {
	st, err := s.r.Container.Status()
	if err == nil && st.Pid != 0 {
		err = s.engine.Announce(context.Background(), st.Pid)
	}
	if err != nil {
		slog.Warn("the container's neighbours may not find it until it says something", "container", s.r.ID, "error", err)
	}
}

// end ends the source: every process has its SIGKILL before the freezer lets
// go, so that none of them runs a single instruction.
func end(r shim.CheckpointRequest) error {
	// The silence of its network has ended with the engine: the clients of the copy would
	// hear that their connections end.
	pids, err := r.Container.Pids()
	if err == nil {
		err = tcprepair.Mute(pids)
	}
	if err != nil {
		slog.Warn("clients may hear of the end of a container whose copy runs", "container", r.ID, "error", err)
	}
	err = r.Container.Signal(syscall.SIGKILL, true)
	if errors.Is(err, runtime.ErrNotRunning) {
		return nil
	}
	return err
}

// unclearError: what became of a copy cannot be told at the moment.
type unclearError struct{ error }

func (e *unclearError) Unwrap() error { return e.error }

// arrived asks the journal what became of a copy whose engine has failed: it may
// run whole all the same. Errors: an unclearError proves nothing; of any other one the
// copy does not run, or is of no use.
func arrived(dir string, from address.Incoming, request string, cause error) error {
	said, whole, err := journal.CopyOf(dir, from.Token, request)
	switch {
	case errors.Is(err, journal.ErrUnknown):
		return cause
	case err != nil:
		return &unclearError{errors.Join(cause, err)}
	case said == handover.Running && !whole:
		return fmt.Errorf("the copy lacks what was left behind at the switch, and nobody can bring it any more: %w", cause)
	case said == handover.Running:
		slog.Warn("the copy runs, though its engine has failed", "token", from.Token, "error", cause)
		return nil
	}
	return fmt.Errorf("%w (the destination says %s)", cause, said)
}
