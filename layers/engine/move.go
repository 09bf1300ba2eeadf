// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/engine/switchover"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/container"
	"github.com/io-mig/mig/layers/kernel/onthread"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/limit"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/resolve/question"
	"github.com/io-mig/mig/spec/wire"
)

// move exports the job's container to another host, where it goes on.
func move(ctx context.Context, j *job.Job, r job.Reporter) error {
	brace()
	m, err := address.ParseMove(j.Image)
	if err != nil {
		return err
	}
	strategy, err := liveStrategy(m)
	if err != nil {
		return err
	}
	subsystems, err := Subsystems()
	if err != nil {
		return err
	}
	src, err := openSource(j)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	peer := &peer{}
	plain := subsystems.Instances(target.Env{Source: src, Workers: workers(), Options: j.Options, Peer: peer})
	instances, times := onthread.Wrap(plain, container.Source{Source: src}.Traced)
	slow, err := newSlowdown(j, m.AutoConverge)
	if err != nil {
		return err
	}
	log, err := newJournal(j, journal.Source, m.Token)
	if err != nil {
		return err
	}
	out, err := dialMove(ctx, m, strategy.LeaveBehind != control.LeaveNever)
	if err != nil {
		return errors.Join(err, log.Write(handover.EntryKept))
	}
	var md medium.Medium = out
	if m.Bandwidth > 0 {
		if md, err = limit.New(out, m.Bandwidth); err != nil {
			return errors.Join(err, out.Close())
		}
	}
	peer.bind(out, nil, plain)
	out.serve(peer.pulled)
	ask := func(ctx context.Context) (handover.Message, error) { return question.Ask(ctx, m) }
	sw := switchover.NewSource(out, log, ask, cancel)
	if err := writeManifest(ctx, md, j.Container, &src.Files, subsystems); err != nil {
		return errors.Join(err, md.Close())
	}
	point("source: manifest sent")
	p := newProgress(r, times) // from here on the medium is the event's, which closes it
	var x *control.Exporter
	sw.Needed = func() bool { return x.LeavesBehind() }
	sw.Forced = func() bool { return journal.Forced(log.dir, m.Token) }
	outlasts := false
	sw.Doubts = func(answer string) {
		p.doubts(m.Host, answer)
		if doubt := answer != "" && x.LeavesBehind(); doubt != outlasts {
			outlasts = doubt
			outlast(r, doubt)
		}
	}
	tune := moveTuning(j, p, "source", func(ctx context.Context, cause error) {
		sw.Failing(ctx, cause)
		out.Abandon()
	})
	tune.Moved = out.Moved
	// A source that is stopped long, for all of its memory, does not hurry.
	if strategy.Rounds > 0 || strategy.LeaveBehind != control.LeaveNever {
		tune.Observer = hurrying(tune.Observer, control.StateHolding, control.StateDecided)
	}
	tune.Observer = whenWhole(tune.Observer, control.StateCleaning, log)
	tune.Observer = decided(tune.Observer, control.StateLeft, r, func() uint64 { return out.Moved() + peer.pulls.Load() })
	tune.Reside = container.Source{Source: src}.Reside
	tune.Await = func(done <-chan struct{}) { tracer.WaitFor(done) }
	quiesce, wake := application(j, r)
	x = control.NewExport(control.ExportOptions{
		Tuning: tune, Container: container.Source{Source: src}, Subsystems: instances, Medium: md,
		Strategy: strategy, Prepare: sw.Prepare, Quiesce: quiesce, Wake: wake, Slow: slow.to,
		Switch: func(ctx context.Context) (control.Verdict, error) {
			log.stage(handover.EntryCommitted, x.LeavesBehind()) // while the destination builds
			return sw.Switch(ctx)
		},
		Drain: func(ctx context.Context) error {
			slog.Warn("what was left behind could not be pushed: the copy fetches it", "token", m.Token)
			return peer.drain(ctx, func(ctx context.Context) (bool, error) {
				said, whole, err := question.AskWhole(ctx, m)
				return said == handover.Running && whole, err
			})
		},
	})
	stop := p.watch(x.Status)
	result, err := x.Run(ctx)
	stop(result)
	return err
}

// receive turns the job's frame into the container that comes from another host.
func receive(ctx context.Context, j *job.Job, files []*os.File, r job.Reporter) error {
	brace()
	from, err := address.ParseIncoming(j.Image)
	if err != nil {
		return err
	}
	subsystems, err := Subsystems()
	if err != nil {
		return err
	}
	spec, err := loadSpec(j)
	if err != nil {
		return err
	}
	fr, err := openFrame(j, spec, files)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	log, err := newJournal(j, journal.Destination, from.Token)
	if err != nil {
		return err
	}
	in, err := acceptMove(ctx, from)
	if err != nil {
		return errors.Join(err, log.Write(handover.EntryAborted)) // nobody will run it
	}
	point("destination: connected")
	sw := switchover.NewDestination(in, log, cancel)
	manifest, err := readManifest(ctx, in, subsystems)
	if err != nil {
		sw.Failing(context.WithoutCancel(ctx), err)
		return errors.Join(err, in.Close())
	}
	point("destination: manifest read")
	var x *control.Importer
	staged := sync.OnceFunc(func() { log.stageCopy(x.MoreFollows()) })
	sw.Meanwhile = func() error {
		if err := fr.Arm(); err != nil {
			return err
		}
		staged()
		return nil
	}
	if s, ok := r.(job.Supervised); ok {
		sw.Supervised = s.Supervised
	}
	fr.Releasing, sw.LetGo = sw.Releasing, fr.LetGo
	peer := &peer{}
	env := target.Env{Frame: fr, Workers: workers(), Options: j.Options, Peer: peer}
	if k, ok := r.(job.Keeper); ok {
		env.Keep, env.Leave = k.Keep, k.Leave
	}
	plain := subsystems.Instances(env)
	peer.bind(in, in.puller, plain)
	instances, times := onthread.Wrap(plain, container.Frame{Frame: fr}.Traced)
	p := newProgress(r, times) // from here on the medium is the event's, which closes it
	tune := moveTuning(j, p, "destination", sw.Failing)
	tune.Moved = in.Moved
	tune.Observer = whenWhole(hurrying(tune.Observer, control.StateBuilding, control.StateRunning), control.StateDone, log)
	tune.Observer = beginning(tune.Observer, control.StateReady, staged)
	tune.Observer = decided(tune.Observer, control.StateFilling, r, func() uint64 { return in.Moved() + peer.pulls.Load() })
	tune.Reside = container.Frame{Frame: fr}.Reside
	x = control.NewImport(control.ImportOptions{
		Tuning: tune, Container: container.Frame{Frame: fr}, Medium: in,
		Subsystems: instances,
		Manifest:   func(context.Context) ([]string, error) { return manifest.Names(), nil },
		Prepared: func(ctx context.Context) error {
			if err := prepare(ctx, plain); err != nil {
				return err
			}
			return sw.Prepared(ctx)
		},
		Ready: sw.Ready,
		Running: func(ctx context.Context) error {
			in.goodbye = sw.Goodbye
			return sw.Running(ctx)
		},
		Fill: func(ctx context.Context) error {
			in.goodbye = nil // the source has nothing more to say there
			if err := peer.fill(ctx); err != nil {
				return err
			}
			if err := log.whole(); err != nil {
				return err
			}
			peer.tellWhole()
			return nil
		},
	})
	stop := p.watch(x.Status)
	result, err := x.Run(ctx)
	stop(result)
	return err
}

// prepare has the subsystems build what they can before the source is stopped.
func prepare(ctx context.Context, list []kernel.Subsystem) error {
	for _, s := range list {
		if p, ok := s.(kernel.Preparer); ok {
			if err := p.Prepare(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// liveStrategy is the address's transfer order.
func liveStrategy(m address.Move) (control.Strategy, error) {
	name := m.Strategy
	if name == "" || name == control.Auto.Name {
		// Auto would leave memory behind where the rounds do not suffice. A copy
		// whose engine dies while it fills is lost, so that has to be asked for.
		name = control.PreCopy.Name
	}
	s, err := control.StrategyByName(name)
	if err != nil {
		return s, err
	}
	if m.Downtime > 0 {
		s.Downtime = m.Downtime
	}
	if m.AutoConverge {
		s.Slower = len(slowerShares)
	}
	if m.Rounds > 0 && s.Rounds > 0 {
		s.Rounds = m.Rounds
	}
	return s, nil
}

// point is a step that a test may die at, see switchover.Point.
func point(name string) {
	if switchover.Point != nil {
		switchover.Point(name)
	}
}

// moveTuning is tuning with what a peer needs: the reason of a failure.
func moveTuning(j *job.Job, p *progress, side string, failing func(context.Context, error)) control.Tuning {
	t := tuning(j, p)
	observe := t.Observer
	t.Called = p.steps.called
	t.Observer = func(tr control.Transition) {
		observe(tr)
		p.steps.observe(tr)
		point(side + ": " + tr.To.String())
	}
	t.Failing = failing
	return t
}

// entries writes the journal of one side.
type entries struct {
	dir string

	mu sync.Mutex
	// Below: guarded by mu.
	state journal.State
	// staged is what the journal's next write was prepared as, see stage.
	staged *journal.State
}

func newJournal(j *job.Job, side journal.Side, token wire.Token) (*entries, error) {
	e := &entries{dir: j.Journal, state: journal.State{
		Token: token, Side: side, Container: j.Container, Namespace: j.Namespace, Request: j.Request, Image: j.Image, Freezer: j.Freezer,
	}}
	if e.dir == "" {
		e.dir = journal.Dir
	}
	var err error
	if e.state.Engine, err = journal.ProcessOf(os.Getpid()); err != nil {
		return nil, err
	}
	if e.state.Init, err = journal.ProcessOf(j.InitPid); err != nil {
		return nil, err
	}
	return e, journal.Create(e.dir, e.state)
}

// Write is switchover.Journal's.
func (e *entries) Write(entry handover.Entry) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state.Entry = entry
	ready := e.staged != nil && *e.staged == e.state
	e.staged = nil
	if ready {
		return journal.Publish(e.dir, e.state)
	}
	return journal.Write(e.dir, e.state)
}

// stage prepares a Write, which does without that if it cannot be prepared. left:
// state is left behind at the switch.
func (e *entries) stage(entry handover.Entry, left bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stageLocked(entry, left)
}

// stageCopy prepares the entry of a whole copy, and notes how many processes it has.
func (e *entries) stageCopy(left bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state.Tasks = e.state.Count()
	e.stageLocked(handover.EntryCommitted, left)
}

func (e *entries) stageLocked(entry handover.Entry, left bool) {
	e.state.Left = left
	next := e.state
	next.Entry = entry
	if e.staged = nil; journal.Stage(e.dir, next) == nil {
		e.staged = &next
	}
}

// whole notes that nothing of what was left behind is missing any more.
func (e *entries) whole() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.state.Left {
		return nil
	}
	e.state.Left, e.staged = false, nil
	return journal.Write(e.dir, e.state)
}

// whenWhole is an observer that notes it at a state.
func whenWhole(observe control.Observer, at control.State, log *entries) control.Observer {
	return func(t control.Transition) {
		observe(t)
		if t.To != at {
			return
		}
		if err := log.whole(); err != nil {
			slog.Error("journal", "error", err)
		}
	}
}

// decided is an observer that tells the supervisor, from a state on, that the copy runs
// and that only the rest of its state is still to come: a cancel must not lose that. The
// telling is not waited for.
func decided(observe control.Observer, at control.State, r job.Reporter, moved func() uint64) control.Observer {
	d, ok := r.(job.Decider)
	if !ok {
		return observe
	}
	return beginning(observe, at, func() { d.Decided(moved) })
}

// outlast has a job not given up, whoever cancels it, as long as it is in doubt whether a
// copy runs that needs what only this engine has.
func outlast(r job.Reporter, doubt bool) {
	d, ok := r.(job.Decider)
	switch {
	case !ok:
	case doubt:
		d.Decided(func() uint64 { return uint64(time.Now().UnixNano()) })
	default:
		d.Decided(func() uint64 { return 0 })
	}
}

// beginning is an observer that has fn begun at a state, in the background: whoever
// needs what it does calls it, too, and waits.
func beginning(observe control.Observer, at control.State, fn func()) control.Observer {
	return func(t control.Transition) {
		observe(t)
		if t.To == at {
			go fn()
		}
	}
}

// connectTimeout bounds how long a destination waits for its source.
const connectTimeout = 60 * time.Second
