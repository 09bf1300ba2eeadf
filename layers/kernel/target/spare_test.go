// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"testing"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// TestSpareTracersEnd: one that was taken serves on, one that nobody took ends, and
// one that comes later is not kept.
func TestSpareTracersEnd(t *testing.T) {
	var l spareTracers
	taken, left, late := tracer.New(), tracer.New(), tracer.New()
	l.add(left)
	l.add(taken)
	if got := l.take(); got != taken {
		t.Fatal("the tracer that was there was not taken")
	}
	defer taken.Close()
	l.end()
	if l.add(late) {
		t.Error("a tracer was kept that nobody will end")
	}
	nothing := func() error { return nil }
	for _, tr := range []*tracer.Tracer{left, late} {
		if err := tr.Do(nothing); !errors.Is(err, tracer.ErrClosed) {
			t.Errorf("a tracer that nobody took goes on: %v", err)
		}
	}
	if err := taken.Do(nothing); err != nil {
		t.Errorf("a tracer that somebody has ended: %v", err)
	}
	other := l.take()
	defer other.Close()
	if err := other.Do(nothing); err != nil {
		t.Errorf("a new tracer: %v", err)
	}
}
