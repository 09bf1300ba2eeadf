// SPDX-License-Identifier: Apache-2.0

// Package limit bounds the rate of a medium.
package limit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
)

// Limiter is a medium that passes at most so many bytes a second.
type Limiter struct {
	medium.Medium
	rate float64

	mu sync.Mutex
	// free is when everything that has passed is paid for.
	free time.Time
}

// New limits m to rate bytes of payload a second. Both directions together
// share it; it closes m when it is closed.
func New(m medium.Medium, rate int64) (*Limiter, error) {
	if rate <= 0 {
		return nil, fmt.Errorf("limit of %d bytes a second: it must be positive", rate)
	}
	return &Limiter{Medium: m, rate: float64(rate)}, nil
}

// Unwrap returns the medium that is limited.
func (l *Limiter) Unwrap() medium.Medium { return l.Medium }

// PushData waits for its turn, then pushes.
func (l *Limiter) PushData(ctx context.Context, r *record.Record) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	err := l.Medium.PushData(ctx, r)
	if err == nil {
		l.spend(len(r.Payload))
	}
	return err
}

// PopData waits for its turn, then pops: so a pop that is cancelled while it
// waits has not taken a record.
func (l *Limiter) PopData(ctx context.Context) (*record.Record, func(), error) {
	if err := l.wait(ctx); err != nil {
		return nil, nil, err
	}
	r, release, err := l.Medium.PopData(ctx)
	if err == nil {
		l.spend(len(r.Payload))
	}
	return r, release, err
}

// wait returns when what has passed is paid for. Callers that wait together
// pass together and pay together: the mean rate holds over a few records.
func (l *Limiter) wait(ctx context.Context) error {
	for {
		l.mu.Lock()
		d := time.Until(l.free)
		l.mu.Unlock()
		if d <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (l *Limiter) spend(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
}
