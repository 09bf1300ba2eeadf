// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// receive imports the records before the switch.
func (m *Importer) receive(ctx context.Context) error {
	if err := m.to(StateReceiving); err != nil {
		return err
	}
	err := m.receiveAll(ctx)
	m.arrived = time.Now()
	return err
}

// receiveAll imports records until the end of the stream or the switch mark.
// Several workers take turns at the medium, so that the order of the records is
// that of their turns; what follows a turn runs side by side as far as the
// order allows.
func (m *Importer) receiveAll(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &reader{m: m, order: newOrder(), turn: make(chan struct{}, 1)}
	err := m.sheltered(ctx, func(ctx context.Context) error {
		var wg sync.WaitGroup
		var once sync.Once
		var first error
		for range m.tune.Workers {
			wg.Go(func() {
				for {
					more, err := r.next(ctx)
					if err != nil {
						once.Do(func() { first = err; cancel(err) })
					}
					if err != nil || !more {
						return
					}
				}
			})
		}
		wg.Wait()
		return first
	})
	if err != nil {
		return err
	}
	m.more = r.marked
	return context.Cause(ctx)
}

// reader is the workers' shared view of the stream.
type reader struct {
	m *Importer

	// turn is held, by the one whose value is in it, while a record is taken
	// from the medium and given its place. A channel, so that waiting for it
	// ends with the context.
	turn   chan struct{}
	order  *order // guarded by turn
	ended  bool   // guarded by turn
	marked bool   // more follows; guarded by turn, read after the workers
}

// next takes one record and imports it. more is false after the last. After a
// failure nobody behind the record is let go on, and a record whose step never
// returned stays the step's.
func (r *reader) next(ctx context.Context) (more bool, err error) {
	head, slot, err := r.take(ctx)
	if err != nil || head == nil {
		return false, err
	}
	got, err := r.load(ctx, head)
	if err != nil {
		return false, err
	}
	err = r.m.apply(ctx, got.rec, slot)
	if err == nil {
		slot.done()
	}
	var stuck *StuckError
	if !errors.As(err, &stuck) {
		got.release()
	}
	return true, err
}

// popped is a record that was popped.
type popped struct {
	rec     *record.Record
	release func()
}

// head is a record that has its place in the order.
type head struct {
	record.Header
	// got it is where the medium hands out whole records only, otherwise load gets
	// it.
	got  *popped
	load func(context.Context) (*record.Record, func(), error)
}

// take pops the next record and its place in the order. It is nil at the end.
func (r *reader) take(ctx context.Context) (*head, slot, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, slot{}, context.Cause(ctx)
	}
	if r.ended {
		return nil, slot{}, nil
	}
	h, err := r.pop(ctx)
	switch {
	case errors.Is(err, io.EOF):
		r.ended = true
		return nil, slot{}, nil
	case err != nil:
		r.ended = true
		return nil, slot{}, err
	}
	if h.Subsystem != markName {
		return h, r.order.slot(h.Header, r.m.concurrent(h.Header)), nil
	}
	r.ended = true
	got, err := r.load(ctx, h)
	if err != nil {
		return nil, slot{}, err
	}
	defer got.release()
	return nil, slot{}, r.mark(got.rec)
}

// pop calls the medium.
func (r *reader) pop(ctx context.Context) (*head, error) {
	m := r.m.opts.Medium
	popper, ok := m.(HeadPopper)
	if !ok {
		got, err := r.popped(ctx, m.PopData)
		if err != nil {
			return nil, err
		}
		return &head{Header: got.rec.Header, got: &got}, nil
	}
	answer := make(chan *head, 1)
	err := r.m.call(ctx, Place{Call: "pop record"}, func(ctx context.Context) error {
		h, load, err := popper.PopHead(ctx)
		if err == nil {
			answer <- &head{Header: h, load: load}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-answer, nil
}

// load gets the payload.
func (r *reader) load(ctx context.Context, h *head) (popped, error) {
	if h.got == nil {
		got, err := r.popped(ctx, h.load)
		if err != nil {
			return popped{}, err
		}
		h.got = &got
	}
	r.m.passed(len(h.got.rec.Payload))
	return *h.got, nil
}

// popped has the medium hand out a record. One that arrives after the event gave
// up waiting for it is dropped unreleased: the medium is being abandoned.
func (r *reader) popped(ctx context.Context, get func(context.Context) (*record.Record, func(), error)) (popped, error) {
	answer := make(chan popped, 1)
	err := r.m.call(ctx, Place{Call: "pop record"}, func(ctx context.Context) error {
		rec, release, err := get(ctx)
		if err != nil {
			return err
		}
		if rec == nil {
			return &DefectError{What: "the medium returned no record and no error"}
		}
		if release == nil {
			release = func() {}
		}
		answer <- popped{rec, release}
		return nil
	})
	if err != nil {
		return popped{}, err
	}
	return <-answer, nil
}

// mark takes note of control's own record.
func (r *reader) mark(rec *record.Record) error {
	if err := rec.Verify(); err != nil {
		return err
	}
	if rec.Kind != kindSwitch || len(rec.Payload) != 1 || rec.Payload[0] > 1 || r.m.more {
		return fmt.Errorf("record %s has no meaning here", rec.Header)
	}
	r.marked = rec.Payload[0] == 1
	return nil
}

func (m *Importer) concurrent(h record.Header) bool {
	c, ok := m.byName[h.Subsystem].(ConcurrentReceiver)
	return ok && c.Concurrent(h)
}

// apply verifies a record, waits for its turn and hands it to its subsystem. A
// damaged one may be recovered out of turn, if its subsystem can.
func (m *Importer) apply(ctx context.Context, rec *record.Record, s slot) error {
	damage := rec.Verify()
	sub := m.byName[rec.Subsystem]
	switch {
	case sub == nil && damage != nil:
		return damage
	case sub == nil:
		return fmt.Errorf("record %s: %w", rec.Header, &UnknownSubsystemError{Names: []string{rec.Subsystem}})
	}
	if err := s.wait(ctx); err != nil {
		return fmt.Errorf("record %s: %w", rec.Header, err)
	}
	if damage != nil {
		return m.recover(ctx, sub, rec.Header, damage)
	}
	st := record.Step{Stage: record.StageReceive, Process: rec.Process}
	_, err := m.step(ctx, sub, st, func(ctx context.Context, st record.Step) (record.Progress, error) {
		return sub.Restart(ctx, st, rec)
	})
	if err != nil {
		return fmt.Errorf("record %s: %w", rec.Header, err)
	}
	return nil
}

func (m *Importer) recover(ctx context.Context, sub Subsystem, h record.Header, damage error) error {
	err := m.call(ctx, Place{Call: "fault", Subsystem: sub.Name(), Process: h.Process}, func(ctx context.Context) error {
		return sub.Fault(ctx, record.Fault{Header: h, Cause: damage})
	})
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; it cannot be fetched again: %w", damage, err)
}
