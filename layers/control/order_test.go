// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"testing"

	"github.com/io-mig/mig/spec/record"
)

func page(n uint64) record.Header {
	return record.Header{Subsystem: "memory", Kind: 1, Process: 1, Entity: n}
}

// free reports whether a slot has nothing to wait for.
func free(s slot) bool {
	for _, c := range s.before {
		if !closed(c) {
			return false
		}
	}
	return true
}

func TestOrder(t *testing.T) {
	o := newOrder()
	a := o.slot(page(1), true)
	b := o.slot(page(2), true)
	a2 := o.slot(page(1), true) // a later version of a
	x := o.slot(page(9), false)
	c := o.slot(page(1), true) // after the barrier
	if !free(a) || !free(b) {
		t.Error("different pages wait for each other")
	}
	if free(a2) || free(x) || free(c) {
		t.Error("somebody overtakes")
	}
	a.done()
	if !free(a2) || free(x) {
		t.Error("a later version waits for more than the one before, or a barrier for less than all")
	}
	b.done()
	a2.done()
	if !free(x) || free(c) {
		t.Error("the barrier is not one")
	}
	x.done()
	if !free(c) {
		t.Error("the barrier holds although it is done")
	}
}

// TestOrderIsBounded runs many pages through: neither the memory of what is
// done nor the list to wait for may grow with them.
func TestOrderIsBounded(t *testing.T) {
	o := newOrder()
	old := o.slot(page(0), true) // never done
	for n := range uint64(100_000) {
		o.slot(page(n+1), true).done()
	}
	if len(o.since) > 512 || len(o.last) > 512 {
		t.Errorf("%d and %d pages are remembered", len(o.since), len(o.last))
	}
	x := o.slot(page(9), false)
	if free(x) {
		t.Error("the page that is not done was forgotten")
	}
	old.done()
	if !free(x) {
		t.Error("the barrier waits for pages that are done")
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	o := newOrder()
	o.slot(page(1), false)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if err := o.slot(page(2), true).wait(ctx); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}
