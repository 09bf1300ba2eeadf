// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"errors"
	"fmt"

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
			_, _, err := classify(d, s.env.Source.Init)
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
