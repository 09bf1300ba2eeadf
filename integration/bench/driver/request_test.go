// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"slices"
	"testing"
	"time"
)

func TestSharesAddUpToTheRequest(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	r := Request{Created: begin}
	if _, err := r.Shares(); err == nil {
		t.Error("a request without phases has shares")
	}
	ended := at(20)
	r.Ended = &ended
	r.Progress.Phases = []Phase{{"preflight", at(5)}, {"holding", at(6)}, {"setup", at(8)}, {"holding", at(9)}, {"decided", at(12)}, {"done", at(15)}}
	got, err := r.Shares()
	ms := time.Millisecond
	want := []Share{{"start the engine", 5 * ms}, {"preflight", ms}, {"holding", 5 * ms}, {"setup", ms}, {"decided", 3 * ms}, {"end the engine", 5 * ms}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	var sum time.Duration
	for _, s := range got {
		sum += s.Took
	}
	if sum != ended.Sub(begin) {
		t.Errorf("the shares add up to %v of %v", sum, ended.Sub(begin))
	}
	if took, err := r.Committed(); err != nil || took != 12*ms {
		t.Errorf("committed after %v, %v", took, err)
	}
}
