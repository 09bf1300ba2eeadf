// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// verbDescribe is the command by which the destination of a move asks, before
// anything is stopped, in which hierarchies the container has made cgroups.
const verbDescribe = "describe"

// Command answers it with state.Hierarchies.
func (s *Subsystem) Command(_ context.Context, c record.Command) (record.Command, error) {
	if c.Verb != verbDescribe || s.env.Source == nil {
		return record.Command{}, fmt.Errorf("cgroup: command %q: %w", c.Verb, errors.ErrUnsupported)
	}
	trees, err := s.carried()
	if err != nil {
		return record.Command{}, fmt.Errorf("cgroup: %w", err)
	}
	m := &state.Hierarchies{}
	for _, t := range trees {
		m.Hierarchy = append(m.Hierarchy, &state.Hierarchy{Controller: t.Controller, SubtreeControl: t.SubtreeControl})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return record.Command{}, fmt.Errorf("cgroup: %w", err)
	}
	return record.Command{To: Name, Verb: c.Verb, Body: b}, nil
}

// Prepare refuses a container whose cgroups cannot be made here, while it runs on
// there. A source of a version that carries none does not know the command.
func (s *Subsystem) Prepare(ctx context.Context) error {
	if s.env.Peer == nil {
		return nil
	}
	answer, err := s.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbDescribe})
	if err != nil {
		return ctx.Err()
	}
	if err := s.possible(answer.Body); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

func (s *Subsystem) possible(body []byte) error {
	m := &state.Hierarchies{}
	if err := proto.Unmarshal(body, m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	if len(m.Hierarchy) > maxHierarchies {
		return fmt.Errorf("%w: in %d hierarchies", errImage, len(m.Hierarchy))
	}
	for _, h := range m.Hierarchy {
		if err := check(h); err != nil {
			return err
		}
		if err := s.allowed(h); err != nil {
			return err
		}
	}
	return nil
}
