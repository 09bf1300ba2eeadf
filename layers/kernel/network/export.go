// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// exports: the container has a namespace of its own that goes along.
func (s *Subsystem) exports() bool { return s.env.Source.OwnNet && !s.leaves() }

// changeable: processes of the container can change settings of /proc/sys/net.
func (s *Subsystem) changeable() bool {
	for _, p := range s.env.Source.Files.Masked {
		if p == "/proc/sys" || p == "/proc/sys/net" {
			a := s.env.Source.Allowed
			// It is mounted read-only, but who may mount can have another.
			return a == nil || a.CanReach(unix.CAP_SYS_ADMIN)
		}
	}
	return true
}

// Command answers the destination, which asks before anything is stopped.
func (s *Subsystem) Command(_ context.Context, c record.Command) (record.Command, error) {
	if c.Verb != verbDescribe || s.env.Source == nil {
		return record.Command{}, fmt.Errorf("network: command %q: %w", c.Verb, errors.ErrUnsupported)
	}
	if !s.exports() {
		return record.Command{To: Name, Verb: c.Verb}, nil
	}
	n, err := s.read(true)
	if err != nil {
		return record.Command{}, fmt.Errorf("network: %w", err)
	}
	b, err := marshal(n)
	if err == nil && len(b) > maxAnswer {
		// Rules are many or few; what is left out comes at the switch.
		n.Netfilter, n.Table = nil, nil
		b, err = marshal(n)
	}
	if err != nil {
		return record.Command{}, fmt.Errorf("network: %w", err)
	}
	s.asked.Store(!s.changeable())
	return record.Command{To: Name, Verb: c.Verb, Body: b}, nil
}

// maxAnswer is what an answer to a command may have, in bytes (wire.MaxBody).
const maxAnswer = 1 << 20

// read reads the namespace.
func (s *Subsystem) read(settings bool) (*state.Network, error) {
	ns, err := open(s.env.Source.Init)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return readNamespace(ns, settings)
}

// partSize is the payload of one record, in bytes.
const partSize = record.MaxPayload / 2

// Checkpoint exports the namespace.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared || !s.exports() {
		return record.Progress{Done: true}, nil
	}
	n, err := s.read(!s.asked.Load())
	if err != nil {
		return record.Progress{}, fmt.Errorf("network: %w", err)
	}
	b, err := marshal(n)
	if err != nil {
		return record.Progress{}, fmt.Errorf("network: %w", err)
	}
	for len(b) > 0 {
		kind, n := uint32(KindNetwork), len(b)
		if n > partSize {
			kind, n = KindPart, partSize
		}
		if err := out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: kind}, Payload: b[:n]}); err != nil {
			return record.Progress{}, err
		}
		s.bytes.Add(uint64(n))
		b = b[n:]
	}
	return record.Progress{Done: true, Advanced: true}, nil
}
