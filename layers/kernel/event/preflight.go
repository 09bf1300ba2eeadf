// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Preflight names what could not be carried, while the tasks run. What an epoll
// instance watches is only known for certain when they are stopped.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	pids, err := s.env.Source.Pids()
	if err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	var out []record.Finding
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list, err := s.env.Source.Look(pid)
		if err != nil {
			return nil, fmt.Errorf("event: %w", err)
		}
		for i := range list {
			d := &list[i]
			if d.Owner() != target.OwnerEvent {
				continue
			}
			found, err := s.inspect(d)
			out = append(out, found...)
			if procfs.IsGone(err) {
				continue
			}
			var r *refusal
			if errors.As(err, &r) {
				out = append(out, record.Finding{Pid: d.Holder, FD: d.FD, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
			} else if err != nil {
				return nil, fmt.Errorf("event: pid %d: fd %d: %w", pid, d.FD, err)
			}
		}
	}
	return out, nil
}

// inspect looks at one descriptor; what it finds is lost.
func (s *Subsystem) inspect(d *target.Descriptor) ([]record.Finding, error) {
	_, msg, err := classify(d, s.env.Source.Init)
	if err != nil {
		return nil, err
	}
	lost := record.Finding{Pid: d.Holder, FD: d.FD, Subsystem: Name, Warning: true}
	switch m := msg.(type) {
	case *state.EventFiles:
		lost.What, lost.Why = "inotify instance", "it has events that were not read: the program is told of an overflow (IN_Q_OVERFLOW) instead"
		err = s.describeFiles(d, m)
		if err != nil || !m.Overflow {
			return nil, err
		}
	case *state.EventGroup:
		lost.What, lost.Why = groupName, "it has events that were not read: the program is told of an overflow (FAN_Q_OVERFLOW) instead"
		err = s.describeGroup(d, m)
		if err != nil || !m.Overflow {
			return nil, err
		}
	default:
		return nil, nil
	}
	return []record.Finding{lost}, nil
}
