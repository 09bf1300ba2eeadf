// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/io-mig/mig/spec/record"
)

// holding is a heldBack behind one step, and what it has pushed.
func holding(a *aside) (h *heldBack, pushed *[]uint64) {
	pushed = new([]uint64)
	return &heldBack{
		begun: asides{&fakeSubsystem{}: a},
		push: func(_ context.Context, r *record.Record) error {
			*pushed = append(*pushed, r.Entity)
			return nil
		},
		await: func(done <-chan struct{}) { <-done },
	}, pushed
}

func numbered(n uint64, payload []byte) *record.Record {
	return &record.Record{Header: record.Header{Subsystem: "memory", Entity: n}, Payload: payload}
}

// TestHeldBack: records wait for the steps, in their order and as they were when they
// were put; what would be too much waits itself; behind the steps nothing waits.
func TestHeldBack(t *testing.T) {
	ctx := context.Background()
	a := &aside{done: make(chan struct{})}
	h, pushed := holding(a)
	buffer := []byte("first")
	kept := numbered(1, buffer)
	if err := h.put(ctx, kept); err != nil {
		t.Fatal(err)
	}
	copy(buffer, "again") // the pusher's again
	if got := string(h.kept[0].Payload); len(*pushed) > 0 || got != "first" {
		t.Errorf("pushed %d, kept %q", *pushed, got)
	}
	if err := h.put(ctx, numbered(2, make([]byte, maxHeldBack-len(buffer)))); err != nil || len(*pushed) > 0 {
		t.Errorf("pushed %d, %v", *pushed, err)
	}
	waits := make(chan struct{})
	h.await = func(done <-chan struct{}) { close(waits); <-done }
	put := make(chan error)
	go func() { put <- h.put(ctx, numbered(3, []byte{1})) }()
	<-waits
	if len(*pushed) > 0 {
		t.Errorf("pushed %d before the step was over", *pushed)
	}
	close(a.done)
	if err := <-put; err != nil {
		t.Fatal(err)
	}
	if err := h.put(ctx, numbered(4, nil)); err != nil {
		t.Fatal(err)
	}
	if err := h.release(ctx); err != nil || !slices.Equal(*pushed, []uint64{1, 2, 3, 4}) {
		t.Errorf("pushed %d, %v", *pushed, err)
	}
}

// TestHeldBackFails: behind a step that has failed nothing is pushed.
func TestHeldBackFails(t *testing.T) {
	a := &aside{done: make(chan struct{})}
	h, pushed := holding(a)
	if err := h.put(context.Background(), numbered(1, nil)); err != nil {
		t.Fatal(err)
	}
	a.err = errors.New("the disk is gone")
	close(a.done)
	if err := h.release(context.Background()); !errors.Is(err, a.err) {
		t.Errorf("%v", err)
	}
	if err := h.put(context.Background(), numbered(2, nil)); !errors.Is(err, a.err) || len(*pushed) > 0 {
		t.Errorf("pushed %d, %v", *pushed, err)
	}
}
