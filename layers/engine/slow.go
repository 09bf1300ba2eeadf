// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/io-mig/mig/layers/request/cpuquota"
	"github.com/io-mig/mig/layers/request/job"
)

// slowerShares are what a container is left with at each step, as parts of what it
// used before the first.
var slowerShares = []float64{0.5, 0.25, 0.12, 0.06}

// slowdown slows the container of a move down by its cgroup's quota. What it was
// before is put back by it, and by the shim where this engine dies.
type slowdown struct {
	quota *cpuquota.Quota // nil: not asked for
	// before is the quota that the container had.
	before string
	// began and used are from the move's beginning, busy the processors that it
	// has kept busy from then to the first step.
	began time.Time
	used  time.Duration
	busy  float64
}

func newSlowdown(j *job.Job, wanted bool) (s *slowdown, err error) {
	s = &slowdown{began: time.Now()}
	if !wanted {
		return s, nil
	}
	if s.quota, err = cpuquota.Of(j.Cgroups); err != nil {
		return nil, err
	}
	if s.before, err = s.quota.Read(); err == nil {
		s.used, err = s.quota.Used()
	}
	return s, err
}

// to is control.ExportOptions.Slow.
func (s *slowdown) to(_ context.Context, step int) error {
	if step == 0 {
		if err := s.quota.Write(s.before); err != nil {
			return fmt.Errorf("let the container run as fast as before: %w", err)
		}
		return nil
	}
	if step == 1 {
		used, err := s.quota.Used()
		if err != nil {
			return err
		}
		s.busy = (used - s.used).Seconds() / time.Since(s.began).Seconds()
	}
	share := slowerShares[min(step, len(slowerShares))-1]
	slog.Warn("the container writes faster than its memory travels and is slowed down", "processors", share*s.busy, "before", s.busy)
	if err := s.quota.Limit(share * s.busy); err != nil {
		return fmt.Errorf("slow the container down: %w", err)
	}
	return nil
}
