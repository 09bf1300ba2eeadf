// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Checkpoint exports all terminals in one step, for the container as a whole:
// their ends may be anywhere in it.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared {
		return record.Progress{Done: true}, nil
	}
	list, err := s.env.Source.Terminals()
	if err != nil {
		return record.Progress{}, fmt.Errorf("tty: %w", err)
	}
	init := procfs.Host().Process(s.env.Source.Init)
	for _, t := range list {
		if err := s.export(ctx, t, init, out); err != nil {
			return record.Progress{}, fmt.Errorf("tty: pts/%d: %w", t.Index, err)
		}
	}
	return record.Progress{Done: true, Advanced: true, Entities: s.entities.Load()}, nil
}

// export pushes one terminal and its ends.
func (s *Subsystem) export(ctx context.Context, t *target.Terminal, init procfs.Task, out record.Sink) error {
	if r := unsupported(t); r != nil {
		return r
	}
	if orphaned(t) && s.env.RefusesExec() {
		return orphanRefusal(t)
	}
	if carried(t) {
		m, err := describe(t, init)
		if err == nil {
			err = copyUnread(t, init, m)
		}
		if err != nil {
			return err
		}
		if err := push(ctx, out, record.Header{Kind: KindTerminal, Entity: uint64(t.Index) + 1}, m); err != nil {
			return err
		}
		s.entities.Add(1)
	}
	seen := map[uint64]bool{}
	for i := range t.Ends {
		e := &t.Ends[i]
		if id := e.Descriptor.Description; !seen[id] {
			seen[id] = true
			if err := push(ctx, out, record.Header{Kind: KindEnd, Entity: id}, describeEnd(t, e)); err != nil {
				return err
			}
			s.entities.Add(1)
		}
	}
	return nil
}

func push(ctx context.Context, out record.Sink, h record.Header, m proto.Message) error {
	h.Subsystem = Name
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", h, err)
	}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}
