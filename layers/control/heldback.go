// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"slices"
	"sync"

	"github.com/io-mig/mig/spec/record"
)

// maxHeldBack bounds the payloads that wait for steps beside which they were made, in
// bytes.
const maxHeldBack = 1 << 20

// heldBack keeps the records of subsystems whose turn comes behind steps that were
// begun aside and are still under way: their exports need not wait for those, but the
// destination gets everything in its order.
type heldBack struct {
	begun asides
	push  func(context.Context, *record.Record) error
	await func(done <-chan struct{})

	mu sync.Mutex
	// Below: guarded by mu.
	kept  []*record.Record
	bytes int
	over  bool // the steps are, and nothing is kept any more
}

// put pushes a record, or a copy of it later. Too many wait here for the steps.
func (h *heldBack) put(ctx context.Context, r *record.Record) error {
	h.mu.Lock()
	if !h.over && h.bytes+len(r.Payload) <= maxHeldBack && !h.begun.over() {
		c := *r
		c.Payload = slices.Clone(r.Payload)
		h.kept, h.bytes = append(h.kept, &c), h.bytes+len(c.Payload)
		h.mu.Unlock()
		return nil
	}
	err := h.releaseLocked(ctx)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	return h.push(ctx, r)
}

// release waits for the steps and pushes what was kept.
func (h *heldBack) release(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.releaseLocked(ctx)
}

func (h *heldBack) releaseLocked(ctx context.Context) error {
	if h.over {
		return nil
	}
	for _, a := range h.begun {
		h.await(a.done)
		if a.err != nil {
			return a.err
		}
	}
	for len(h.kept) > 0 {
		if err := h.push(ctx, h.kept[0]); err != nil {
			return err
		}
		h.kept = h.kept[1:]
	}
	h.over = true
	return nil
}
