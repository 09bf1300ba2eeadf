// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
)

// ErrInjected is what every injected error wraps.
var ErrInjected = errors.New("injected fault")

// Plans are a medium's plans by call; nil: nothing happens.
type Plans struct {
	// Records counts pushes and pops.
	Records *Plan
	// Flush counts flushes; corrupt does nothing there.
	Flush *Plan
}

// Medium is a medium that fails as told.
type Medium struct {
	medium.Medium
	plans Plans
}

// New makes m fail by plans. It closes m when it is closed.
func New(m medium.Medium, plans Plans) *Medium { return &Medium{Medium: m, plans: plans} }

// Unwrap returns the medium inside.
func (m *Medium) Unwrap() medium.Medium { return m.Medium }

// PushData pushes unless the plan says otherwise.
func (m *Medium) PushData(ctx context.Context, r *record.Record) error {
	if err := ctx.Err(); err != nil {
		return err // not a record: it does not count
	}
	t := m.plans.Records.next()
	if err := t.before(ctx, "push "+r.String()); err != nil {
		return err
	}
	if t.do == corrupt {
		r = flip(r)
	}
	return m.Medium.PushData(ctx, r)
}

// PopData pops, then does what the plan says.
func (m *Medium) PopData(ctx context.Context) (*record.Record, func(), error) {
	r, release, err := m.Medium.PopData(ctx)
	if err != nil {
		return nil, nil, err
	}
	t := m.plans.Records.next()
	if err := t.before(context.WithoutCancel(ctx), "pop "+r.String()); err != nil {
		release()
		return nil, nil, err
	}
	if t.do == corrupt {
		r = flip(r)
	}
	return r, release, nil
}

// Flush flushes unless the plan says otherwise.
func (m *Medium) Flush(ctx context.Context) error {
	t := m.plans.Flush.next()
	if err := t.before(ctx, "flush"); err != nil {
		return err
	}
	return m.Medium.Flush(ctx)
}

// before is what a term does ahead of the call itself.
func (t term) before(ctx context.Context, what string) error {
	switch t.do {
	case fail:
		return fmt.Errorf("%s: %w: %s", what, ErrInjected, t.text)
	case delay:
		timer := time.NewTimer(t.pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// flip copies a record with one bit changed: in the middle of the payload, or
// in the checksum if there is none. The original is not ours to change.
func flip(r *record.Record) *record.Record {
	c := *r
	if len(r.Payload) == 0 {
		c.Sum ^= 1
		return &c
	}
	c.Payload = bytes.Clone(r.Payload)
	c.Payload[len(c.Payload)/2] ^= 0x10
	return &c
}
