// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/medium/stream"
	"github.com/io-mig/mig/spec/record"
)

// peer is target.Peer over a stream, which is bound when it is connected: the
// subsystems are made before.
type peer struct {
	mu sync.Mutex
	// Below: guarded by mu, nil until bound.
	link    stream.Peer
	puller  *stream.Puller
	pullers map[string]kernel.Puller
}

var errNotConnected = errors.New("the hosts are not connected yet")

// bind connects the subsystems of both hosts.
func (p *peer) bind(link stream.Peer, puller *stream.Puller, subsystems []kernel.Subsystem) {
	p.mu.Lock()
	p.link, p.puller, p.pullers = link, puller, map[string]kernel.Puller{}
	for _, s := range subsystems {
		if out, ok := s.(kernel.Puller); ok {
			p.pullers[s.Name()] = out
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
	return puller.Pull(ctx, want)
}

// pulled answers the copy's pulls, on the source.
func (p *peer) pulled(ctx context.Context, want record.Pull) (*record.Record, func(), error) {
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
	return r, done, r.Seal()
}
