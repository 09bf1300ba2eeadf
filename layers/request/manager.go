// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
)

// ErrBusy is wrapped by Submit where the container has a request already.
var ErrBusy = errors.New("another request is under way")

// Options of a Manager.
type Options struct {
	// Dir and Namespace name the state directory, see OpenStore.
	Dir, Namespace string
	Engine         Engine
	// Keep is how many ended requests are remembered; 0 means DefaultKeep.
	Keep int
	// Every is the shortest time between two writes of one status, but for its
	// last; 0 means 100 ms.
	Every time.Duration
	// Warn is told of what must not fail a request, such as a status that could
	// not be written. May be nil.
	Warn func(error)
}

// Manager accepts requests and sees them to their end. One process has one per
// namespace; several processes may share the state directory.
type Manager struct {
	opts  Options
	store *Store

	mu   sync.Mutex
	busy map[string]*Handle // by container
	byID map[string]*Handle // those under way
}

// NewManager makes a manager. The state directory is made when it is needed.
func NewManager(o Options) (*Manager, error) {
	s, err := OpenStore(o.Dir, o.Namespace)
	if err != nil {
		return nil, err
	}
	if o.Engine == nil {
		return nil, errors.New("a request manager needs an engine")
	}
	if o.Keep <= 0 {
		o.Keep = DefaultKeep
	}
	if o.Every <= 0 {
		o.Every = 100 * time.Millisecond
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return &Manager{opts: o, store: s, busy: map[string]*Handle{}, byID: map[string]*Handle{}}, nil
}

// Submit accepts a request, described as the job that the engine is to do
// without its Request and Namespace, which the manager sets, and starts it. It
// sets the Token, too, unless the hosts of a move have agreed on one. A returned error means that nothing was started. The files are those of
// Job.Files and may be closed on return. The end of ctx cancels the request.
func (m *Manager) Submit(ctx context.Context, j job.Job, files ...*os.File) (*Handle, error) {
	return m.SubmitTo(ctx, m.opts.Engine, j, files...)
}

// SubmitTo is Submit for an engine of the caller's, one that was prepared for
// example.
func (m *Manager) SubmitTo(ctx context.Context, engine Engine, j job.Job, files ...*os.File) (*Handle, error) {
	if err := m.accept(&j, len(files)); err != nil {
		return nil, err
	}
	now := time.Now()
	j.Request, j.Namespace = newID(now), m.opts.Namespace
	if j.Token == "" {
		j.Token = newToken()
	}
	h := &Handle{m: m, dirty: make(chan struct{}, 1), done: make(chan struct{}), status: Status{
		ID: j.Request, Token: j.Token, Kind: j.Kind, Namespace: j.Namespace, Container: j.Container,
		Image: j.Image, Strategy: j.Strategy, Leave: j.Leave, Phase: Pending, Created: now, Updated: now, Owner: self(),
	}}
	ctx, h.stop = context.WithCancelCause(ctx)
	if err := m.enter(h); err != nil {
		h.stop(nil)
		return nil, err
	}
	st := h.Status() // a Cancel may come at once
	written := make(chan struct{})
	go func() { // beside the start of a process
		defer close(written)
		if err := m.store.write(&st); err != nil {
			m.opts.Warn(err) // a full /run is no reason to refuse
		}
	}()
	if j.Timeout > 0 {
		t := time.AfterFunc(j.Timeout, func() {
			h.cancel(fmt.Errorf("the request's time-out of %s has passed: %w", j.Timeout, context.Canceled))
		})
		context.AfterFunc(ctx, func() { t.Stop() })
	}
	run, err := engine.Start(ctx, &j, files)
	<-written // later ones replace it
	if err != nil {
		h.finish(job.Progress{}, err)
		return nil, fmt.Errorf("request %s: %w", j.Request, err)
	}
	h.begin(run)
	return h, nil
}

// accept checks a request and picks its strategy.
func (m *Manager) accept(j *job.Job, files int) error {
	if err := j.Valid(); err != nil {
		return err
	}
	if err := checkName("container", j.Container); err != nil {
		return err
	}
	if len(j.Files) != files {
		return fmt.Errorf("the job names %d descriptors, %d were given", len(j.Files), files)
	}
	for i, s := range j.Stdio {
		if s.File < -1 || s.File >= files {
			return fmt.Errorf("standard stream %d names descriptor %d of %d", i, s.File, files)
		}
	}
	if j.Timeout < 0 {
		return fmt.Errorf("a time-out of %s is in the past", j.Timeout)
	}
	return pick(j)
}

// pick chooses the transfer order. A checkpoint into an image may make early rounds,
// which shorten how long the container is stopped; nothing can be left behind where
// nobody would ask for it later. A move's order is in its address, for the engine; a
// destination and a restore take what comes.
func pick(j *job.Job) error {
	switch {
	case address.IsMove(j.Image):
		m, err := address.ParseMove(j.Image)
		if err != nil || m.Strategy == "" {
			return err
		}
		_, err = control.StrategyByName(m.Strategy)
		return err
	case address.IsIncoming(j.Image):
		return nil
	}
	auto := control.StopAndCopy.Name
	if j.Kind == job.Checkpoint {
		auto = control.Auto.Name
	}
	if j.Strategy == "" || j.Strategy == control.Auto.Name {
		j.Strategy = auto
		return nil
	}
	s, err := control.StrategyByName(j.Strategy)
	if err != nil {
		return err
	}
	if s.LeaveBehind != control.LeaveNever || s.Rounds > 0 && j.Kind != job.Checkpoint {
		return fmt.Errorf("a %s to or from an image cannot be %s: %w", j.Kind, s.Name, errors.ErrUnsupported)
	}
	return nil
}

// enter takes the container for the request.
func (m *Manager) enter(h *Handle) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := h.status.Container
	if other := m.busy[c]; other != nil {
		return fmt.Errorf("container %s: %w (%s, see mig status)", c, ErrBusy, other.ID())
	}
	m.busy[c], m.byID[h.status.ID] = h, h
	return nil
}

func (m *Manager) leave(h *Handle) {
	m.mu.Lock()
	delete(m.busy, h.status.Container)
	delete(m.byID, h.status.ID)
	m.mu.Unlock()
}

// prune forgets the oldest ended requests.
func (m *Manager) prune() {
	if err := m.store.prune(m.opts.Keep, time.Now()); err != nil {
		m.opts.Warn(fmt.Errorf("forget old requests: %w", err))
	}
}

// Cancel cancels a request of this manager.
func (m *Manager) Cancel(id string) error {
	m.mu.Lock()
	h := m.byID[id]
	m.mu.Unlock()
	if h == nil {
		return fmt.Errorf("request %s is not under way here", id)
	}
	h.Cancel()
	return nil
}

// Active reports the request of a container, if it has one.
func (m *Manager) Active(container string) (*Handle, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.busy[container]
	return h, h != nil
}

// Store is where the statuses are.
func (m *Manager) Store() *Store { return m.store }

// newID sorts by time and differs between the processes of a host.
func newID(now time.Time) string {
	return now.UTC().Format("20060102-150405.000") + "-" + randomHex(3)
}

// newToken names the request across hosts and cannot be guessed.
func newToken() string { return randomHex(16) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
