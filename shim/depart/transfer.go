// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/spec/wire"
)

// lookEvery is how often the source's engine is looked at: not more often than
// its status is written.
const lookEvery = 100 * time.Millisecond

// lastWords is how long the destination is waited for once the source's outcome
// is known, and the other way round.
const lastWords = time.Minute

// doubtAfter is how long a container may stay frozen behind its engine's end before
// a person is told: what is only a connection that was cut is over by then.
const doubtAfter = 3 * time.Second

// outcome of the destination.
type outcome struct {
	end *peer.End
	err error
}

// transfer has the shim move the container, and follows it. What the shim says
// decides: it knows which copy lives.
func (m *mover) transfer(ctx context.Context) (err error) {
	shim, err := m.o.Host.Shim(m.o.State, m.source)
	if err != nil {
		return m.giveUp(err)
	}
	defer shim.Close()
	held, err := m.o.Host.HoldRestart(ctx, m.o.Namespace, m.o.Container)
	if err != nil {
		return m.giveUp(err)
	}
	if held {
		defer func() { m.releaseRestart(ctx, err) }()
	}
	if m.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.o.Timeout, fmt.Errorf("the move took longer than %s (--timeout)", m.o.Timeout))
		defer cancel()
	}
	w := &watch{m: m}
	here, there := make(chan error, 1), make(chan outcome, 1)
	go func() { here <- shim.Move(m.o.move(m.token).String()) }()
	go func() {
		end, err := m.client.Wait(func(job.Progress) {})
		there <- outcome{end, err}
	}()
	end, err := m.follow(ctx, w, here, there)
	w.look()
	m.report.Rounds = w.rounds.list
	if w.status != nil {
		m.report.take(w.status.Progress)
	}
	if end != nil {
		for _, p := range end.Last.Phases {
			m.report.PeerStates = append(m.report.PeerStates, job.Phase{State: p.State, At: p.At.Add(-m.client.Skew)})
		}
		for _, s := range end.Last.Steps {
			m.report.PeerSteps = append(m.report.PeerSteps, job.Step{Name: s.Name, At: s.At.Add(-m.client.Skew), Took: s.Took})
		}
	}
	m.confirmed = end != nil && end.Running
	m.report.Moved = err == nil || m.confirmed
	return err
}

// confirmEvery is how often a destination is asked whose migd has not told the end.
const confirmEvery = time.Second

// confirm returns nil when the destination says that the copy runs and has everything.
// What is left of the original are the only files of the container if that host was
// started anew meanwhile: what had not arrived for good by then it removes.
func confirm(ctx context.Context, ask func(context.Context) (handover.Message, bool, error), patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), patience, fmt.Errorf("it has not answered for %s", patience))
	defer cancel()
	for {
		said, whole, err := ask(ctx)
		switch {
		case errors.Is(err, journal.ErrUnknown):
			return err
		case err == nil && said == handover.Running && whole:
			return nil
		case err == nil && said != handover.Running && said != handover.Ready:
			return fmt.Errorf("it says %s", said)
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(confirmEvery):
		}
	}
}

// follow waits for both outcomes and sees that a failure on one side ends the
// other.
func (m *mover) follow(ctx context.Context, w *watch, here <-chan error, there <-chan outcome) (*peer.End, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var why error // of the cancellation
	var end *peer.End
	cancelled := ctx.Done()
	for {
		select {
		case err := <-here:
			return m.decided(err, why, end, there, w)
		case o := <-there:
			there, end = nil, o.end
			// A connection that is lost decides nothing: the engines have their own.
			switch {
			case o.end != nil && o.err != nil:
				why = o.err
			case o.err != nil:
				m.cut = true
			}
		case <-cancelled:
			cancelled, why = nil, context.Cause(ctx)
		case <-tick.C:
			w.look()
			if w.status != nil {
				m.tell(Progress{
					Phase: PhaseMove, Bytes: w.status.Progress.Bytes, Total: w.status.Progress.Total, Source: w.status.Progress,
					Doubt: w.doubt(time.Now()),
				})
			}
			if why != nil {
				w.abort()
			}
		}
	}
}

// decided is called with the shim's word. The destination's is added to it.
func (m *mover) decided(err, why error, end *peer.End, there <-chan outcome, w *watch) (*peer.End, error) {
	if err != nil && end == nil && there != nil {
		_ = m.client.Abort(err) // a destination that is gone undoes by itself
	}
	if end == nil && there != nil {
		select {
		case o := <-there:
			end = o.end
			m.cut = end == nil && o.err != nil
			if err != nil && why == nil {
				why = o.err
			}
		case <-time.After(lastWords):
		}
	}
	switch {
	case err == nil:
		return end, nil
	case end != nil && end.Running:
		return end, m.unended(err)
	}
	w.look()
	return end, m.undone(err, why, w.status)
}

// releaseRestart has containerd look after a container again that has not moved: it may
// start it anew. That it has not moved is for the journal to say, when nobody changes it
// any more: the shim may have died, or the container was killed when nobody knew whether
// its copy runs.
func (m *mover) releaseRestart(ctx context.Context, err error) {
	if err == nil || m.report.Moved {
		return
	}
	kept := stayed(journal.Dir, m.token, lastWords)
	if kept == nil {
		kept = m.o.Host.ReleaseRestart(context.WithoutCancel(ctx), m.o.Namespace, m.o.Container)
	}
	if kept != nil {
		m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("containerd does not start container %s anew any more (label it containerd.io/restart.status=running if it is to): %v", m.o.Container, kept))
	}
}

// stayed is nil if a move has left its container here for good, by this host's journal.
// It waits for the end of an engine that is still at it, for a while.
func stayed(dir string, token wire.Token, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(lookEvery) {
		stays, final, err := journal.Stays(dir, token)
		switch {
		case err != nil:
			return err
		case stays && final:
			return nil
		case final:
			return errors.New("by its journal a copy of it may run")
		case time.Now().After(end):
			return errors.New("its engine does not end")
		}
	}
}

// giveUp tells the destination before the move began.
func (m *mover) giveUp(err error) error {
	return errors.Join(err, m.client.Abort(err))
}

// watch reads the status that the shim keeps of the move.
type watch struct {
	m      *mover
	status *request.Status
	rounds rounds
}

// look reads the status again, once there is one.
func (w *watch) look() {
	store, err := request.OpenStore(w.m.o.Requests, w.m.o.Namespace)
	if err != nil {
		return
	}
	if w.status != nil {
		if st, err := store.Read(w.status.ID); err == nil {
			w.status = st
		}
	} else if st, err := w.find(store); err == nil {
		w.status = st
	}
	if w.status != nil {
		w.rounds.see(w.status, time.Now())
	}
}

// doubt is what a person is to be told of a container that stays frozen, nil if there
// is nothing, or not yet.
func (w *watch) doubt(now time.Time) *Doubt {
	d := w.status.Doubt
	if d == nil {
		return nil
	}
	r := &w.m.report
	lasts := now.Sub(d.Since)
	r.InDoubtMS = max(r.InDoubtMS, ms(lasts))
	if lasts < doubtAfter {
		return nil
	}
	return &Doubt{Doubt: *d, Container: r.Container, Source: r.Source, Destination: r.Destination, Token: r.Token}
}

// find finds the request by its token: by its time it might be another one's, and would be
// cancelled for this one, when the clock was set back.
func (w *watch) find(store *request.Store) (*request.Status, error) {
	all, err := store.List()
	for i := len(all) - 1; i >= 0; i-- {
		st := all[i]
		if st.Kind == job.Checkpoint && st.Container == w.m.o.Container && st.Token == w.m.token.String() {
			return st, nil
		}
	}
	return nil, errors.Join(err, fs.ErrNotExist)
}

// abort asks the shim to undo the move, if that is still possible.
func (w *watch) abort() {
	w.look()
	if w.status == nil {
		return // not begun: asked again
	}
	if store, err := request.OpenStore(w.m.o.Requests, w.m.o.Namespace); err == nil {
		_ = store.Abort(w.status.ID) // one that has ended is what is wanted
	}
}
