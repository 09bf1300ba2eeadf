// SPDX-License-Identifier: Apache-2.0

package mediumtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
)

func testOrder(t *testing.T, target *Target) {
	var list []*record.Record
	for i := range 300 {
		list = append(list, Record(i, []int{17, 4096, 0, 70_000, 128 << 10, 300}[i%6]))
	}
	transfer(t, target, pushAll(t.Context(), list), wantAll(t.Context(), list))
}

func testSizes(t *testing.T, target *Target) {
	var list []*record.Record
	for i, n := range []int{0, 1, 4095, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, record.MaxPayload - 1, record.MaxPayload} {
		list = append(list, Record(i, n))
	}
	transfer(t, target, pushAll(t.Context(), list), wantAll(t.Context(), list))
}

func testEmpty(t *testing.T, target *Target) {
	transfer(t, target, pushAll(t.Context(), nil), wantAll(t.Context(), nil))
}

// testReuse: the payload belongs to the caller again when a push returns.
func testReuse(t *testing.T, target *Target) {
	var list []*record.Record
	for i := range 20 {
		list = append(list, Record(i, 100<<(i%12)))
	}
	transfer(t, target, func(w medium.Medium) error {
		scratch := make([]byte, 1<<20)
		for _, r := range list {
			c := *r
			c.Payload = scratch[:copy(scratch, r.Payload)]
			if err := w.PushData(t.Context(), &c); err != nil {
				return err
			}
			clear(scratch)
		}
		return nil
	}, wantAll(t.Context(), list))
}

// testRelease: payloads stay valid until their release, whatever is popped
// meanwhile.
func testRelease(t *testing.T, target *Target) {
	const held = 16 // within every live medium's bound
	var list []*record.Record
	for i := range 4 * held {
		list = append(list, Record(i, 4096+i))
	}
	transfer(t, target, pushAll(t.Context(), list), func(r medium.Medium) error {
		for start := 0; start < len(list); start += held {
			var got []*record.Record
			var releases []func()
			for range held {
				rec, release, err := r.PopData(t.Context())
				if err != nil {
					return err
				}
				got, releases = append(got, rec), append(releases, release)
			}
			if err := equal(got, list[start:start+held]); err != nil {
				return err
			}
			for _, release := range releases {
				release()
			}
		}
		_, _, err := r.PopData(t.Context())
		if err == io.EOF {
			return nil
		}
		return fmt.Errorf("after the last record: %w", err)
	})
}

// flood pushes count records from each of several goroutines at once.
func flood(ctx context.Context, pushers, count int) func(medium.Medium) error {
	return func(w medium.Medium) error {
		errs := make([]error, pushers)
		var all sync.WaitGroup
		for p := range pushers {
			all.Go(func() {
				for i := 0; i < count && errs[p] == nil; i++ {
					errs[p] = w.PushData(ctx, floodRecord(p, i))
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}
}

func floodRecord(pusher, i int) *record.Record {
	r := Record(pusher*1000+i, []int{50, 4096, 66_000, 256 << 10}[i%4])
	r.Process, r.Entity = record.ProcessID(pusher), uint64(i)
	if err := r.Seal(); err != nil {
		panic(err)
	}
	return r
}

// testConcurrent: many pushers, many poppers, every record exactly once.
func testConcurrent(t *testing.T, target *Target) {
	const pushers, poppers, count = 6, 4, 40
	transfer(t, target, flood(t.Context(), pushers, count), func(r medium.Medium) error {
		var mu sync.Mutex
		seen := map[record.Header]int{}
		errs := make([]error, poppers)
		var all sync.WaitGroup
		for p := range poppers {
			all.Go(func() {
				list, err := readAll(t.Context(), r)
				if err != io.EOF {
					errs[p] = err
				}
				mu.Lock()
				defer mu.Unlock()
				for _, rec := range list {
					seen[rec.Header]++
					if want := floodRecord(int(rec.Process), int(rec.Entity)); !bytes.Equal(rec.Payload, want.Payload) {
						errs[p] = errors.Join(errs[p], fmt.Errorf("%s has the payload of another", rec.Header))
					}
				}
			})
		}
		all.Wait()
		for p := range pushers {
			for i := range count {
				if n := seen[floodRecord(p, i).Header]; n != 1 {
					return fmt.Errorf("record %d of pusher %d came %d times: %w", i, p, n, errors.Join(errs...))
				}
			}
		}
		return errors.Join(errs...)
	})
}

// testConcurrentOrder: what one pusher pushed arrives in its order, whatever
// the others do and whatever the sizes.
func testConcurrentOrder(t *testing.T, target *Target) {
	const pushers, count = 4, 60
	transfer(t, target, flood(t.Context(), pushers, count), func(r medium.Medium) error {
		list, err := readAll(t.Context(), r)
		if err != io.EOF {
			return err
		}
		if len(list) != pushers*count {
			return fmt.Errorf("%d records, want %d", len(list), pushers*count)
		}
		var next [pushers]uint64
		for _, rec := range list {
			if rec.Entity != next[rec.Process] {
				return fmt.Errorf("pusher %d: record %d came where %d belongs", rec.Process, rec.Entity, next[rec.Process])
			}
			next[rec.Process]++
		}
		return nil
	})
}
