// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/medium/stream"
	"github.com/io-mig/mig/spec/record"
)

// peer is target.Peer over a stream, which is bound when it is connected: the
// subsystems are made before.
type peer struct {
	// pulls are the bytes that were pulled, or given to whoever pulls.
	pulls atomic.Uint64

	mu sync.Mutex
	// Below: guarded by mu, nil until bound.
	link    stream.Peer
	puller  *stream.Puller
	pullers map[string]kernel.Puller
	fillers []kernel.Filler
	// whole is closed when the copy says that it has everything.
	whole chan struct{}
	told  bool
}

// The pull by which a copy says that it has everything. It is answered with a
// record without a payload.
const (
	wholeName = "control"
	kindWhole = 2
)

var errNotConnected = errors.New("the hosts are not connected yet")

// bind connects the subsystems of both hosts.
func (p *peer) bind(link stream.Peer, puller *stream.Puller, subsystems []kernel.Subsystem) {
	p.mu.Lock()
	p.link, p.puller, p.pullers, p.whole = link, puller, map[string]kernel.Puller{}, make(chan struct{})
	for _, s := range subsystems {
		if out, ok := s.(kernel.Puller); ok {
			p.pullers[s.Name()] = out
		}
		if f, ok := s.(kernel.Filler); ok {
			p.fillers = append(p.fillers, f)
		}
	}
	p.mu.Unlock()
	for _, s := range subsystems {
		if c, ok := s.(kernel.Commander); ok {
			link.Handle(s.Name(), c.Command)
		}
	}
}

// Command asks the peer of a subsystem.
func (p *peer) Command(ctx context.Context, c record.Command) (record.Command, error) {
	p.mu.Lock()
	link := p.link
	p.mu.Unlock()
	if link == nil {
		return record.Command{}, errNotConnected
	}
	return link.Command(ctx, c)
}

// Pull asks the source for a piece of state.
func (p *peer) Pull(ctx context.Context, want record.Pull) (*record.Record, func(), error) {
	p.mu.Lock()
	puller := p.puller
	p.mu.Unlock()
	if puller == nil {
		return nil, nil, fmt.Errorf("pull of %s: %w", want.Subsystem, errNotConnected)
	}
	r, release, err := puller.Pull(ctx, want)
	if err == nil {
		p.pulls.Add(1 + uint64(len(r.Payload)))
	}
	return r, release, err
}

// pulled answers the copy's pulls, on the source.
func (p *peer) pulled(ctx context.Context, want record.Pull) (*record.Record, func(), error) {
	if want.Subsystem == wholeName {
		return p.heardWhole()
	}
	p.mu.Lock()
	s := p.pullers[want.Subsystem]
	p.mu.Unlock()
	if s == nil {
		return nil, nil, fmt.Errorf("subsystem %q gives nothing out of turn: %w", want.Subsystem, errors.ErrUnsupported)
	}
	r, done, err := s.Pull(ctx, want)
	if err != nil {
		return nil, nil, err
	}
	if r.Subsystem != want.Subsystem || r.Process != want.Process {
		return nil, nil, fmt.Errorf("subsystem %s answers a pull with %s: defect in mig", want.Subsystem, r.Header)
	}
	p.pulls.Add(1 + uint64(len(r.Payload)))
	return r, done, r.Seal()
}

func (p *peer) heardWhole() (*record.Record, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told {
		p.told = true
		close(p.whole)
	}
	r := &record.Record{Header: record.Header{Subsystem: wholeName, Kind: kindWhole}}
	return r, nil, r.Seal()
}

// drain waits, on the source, until the copy has fetched everything. ask asks the
// destination's journal whether it has, in case that the copy's word was lost.
func (p *peer) drain(ctx context.Context, ask func(context.Context) (whole bool, err error)) error {
	const every = 5 * time.Second
	for {
		select {
		case <-p.whole:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(every):
		}
		if whole, err := ask(ctx); err == nil && whole {
			return nil
		}
	}
}

// fill fetches, on the destination, what has stopped coming.
func (p *peer) fill(ctx context.Context) error {
	p.mu.Lock()
	fillers := p.fillers
	p.mu.Unlock()
	if len(fillers) == 0 {
		return errors.New("no subsystem can fetch it")
	}
	for _, f := range fillers {
		if err := f.Fill(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tellWhole says, on the destination, that everything is here. The source also
// finds it in the journal.
func (p *peer) tellWhole() {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, release, err := p.Pull(ctx, record.Pull{Subsystem: wholeName})
	if err == nil {
		release()
	}
}
