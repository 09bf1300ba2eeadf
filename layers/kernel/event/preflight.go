// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
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
			found, err := s.inspect(pid, d)
			out = append(out, found...)
			if procfs.IsGone(err) {
				continue
			}
			var r *refusal
			if errors.As(err, &r) {
				out = append(out, record.Finding{Pid: pid, FD: d.FD, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
			} else if err != nil {
				return nil, fmt.Errorf("event: pid %d: fd %d: %w", pid, d.FD, err)
			}
		}
	}
	return out, nil
}

// inspect looks at one descriptor; what it finds is lost.
func (s *Subsystem) inspect(pid int, d *target.Descriptor) ([]record.Finding, error) {
	kind, _, err := classify(d, s.env.Source.Init)
	if err != nil || kind != KindFiles {
		return nil, err
	}
	if _, err := s.describeWatches(d); err != nil {
		return nil, err
	}
	unread, err := unreadEvents(d)
	if err != nil || !unread {
		return nil, err
	}
	return []record.Finding{{
		Pid: pid, FD: d.FD, Subsystem: Name, Warning: true, What: "inotify instance",
		Why: "it has events that were not read: the program is told of an overflow (IN_Q_OVERFLOW) instead",
	}}, nil
}
