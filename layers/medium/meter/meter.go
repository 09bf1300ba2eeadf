// SPDX-License-Identifier: Apache-2.0

// Package meter counts what passes through a medium.
package meter

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
)

// Count is a number of records and the sum of their payloads' lengths in bytes.
type Count struct{ Records, Bytes uint64 }

func (c *Count) add(n int) {
	c.Records++
	c.Bytes += uint64(n)
}

// Stats is what has passed so far.
type Stats struct {
	Count
	Subsystems map[string]Count
	// Elapsed is the time from New to the last record.
	Elapsed time.Duration
	// Rate is the bytes per second over the last window (about a second).
	Rate float64
}

// Meter is a medium that counts.
type Meter struct {
	medium.Medium
	now func() time.Time

	mu         sync.Mutex
	total      Count
	subsystems map[string]Count
	start      time.Time
	last       time.Time
	// Rate: bytes since windowStart, and the rate of the window before.
	windowStart time.Time
	windowBytes uint64
	rate        float64
}

const window = time.Second

// New meters m. Both directions count alike; it closes m when it is closed.
func New(m medium.Medium) *Meter { return newMeter(m, time.Now) }

func newMeter(m medium.Medium, now func() time.Time) *Meter {
	start := now()
	return &Meter{Medium: m, now: now, subsystems: map[string]Count{}, start: start, last: start, windowStart: start}
}

// Unwrap returns the medium inside.
func (m *Meter) Unwrap() medium.Medium { return m.Medium }

// PushData counts the records that the medium took.
func (m *Meter) PushData(ctx context.Context, r *record.Record) error {
	err := m.Medium.PushData(ctx, r)
	if err == nil {
		m.count(r)
	}
	return err
}

// PopData counts the records that the medium gave.
func (m *Meter) PopData(ctx context.Context) (*record.Record, func(), error) {
	r, release, err := m.Medium.PopData(ctx)
	if err == nil {
		m.count(r)
	}
	return r, release, err
}

// Stats may be called at any time.
func (m *Meter) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Stats{Count: m.total, Subsystems: maps.Clone(m.subsystems), Elapsed: m.last.Sub(m.start), Rate: m.rate}
	switch open := m.now().Sub(m.windowStart); {
	case open >= 2*window: // nothing has come for a while
		s.Rate = float64(m.windowBytes) / open.Seconds()
	case m.rate == 0 && open > 0: // the first window
		s.Rate = float64(m.windowBytes) / open.Seconds()
	}
	return s
}

func (m *Meter) count(r *record.Record) {
	n := len(r.Payload)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = m.now()
	if d := m.last.Sub(m.windowStart); d >= window {
		m.rate = float64(m.windowBytes) / d.Seconds()
		m.windowStart, m.windowBytes = m.last, 0
	}
	m.windowBytes += uint64(n)
	m.total.add(n)
	c := m.subsystems[r.Subsystem]
	c.add(n)
	m.subsystems[r.Subsystem] = c
}
