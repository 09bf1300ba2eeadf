// SPDX-License-Identifier: Apache-2.0

package target

import (
	"slices"
	"testing"
)

func TestBorn(t *testing.T) {
	want := []Born{{5, 30000}, {7, 32700}, {7, 32760}, {7, 301}, {7, 305}, {8, 300}, {9, 20}}
	got := slices.Clone(want)
	slices.SortFunc(got, func(a, b Born) int { return a.Pid - b.Pid })
	slices.SortFunc(got, Born.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("the order is %v, not %v", got, want)
	}
}

// TestRelateAfterWrap: siblings whose ids are below that of their maker, since ids
// began anew between, are related to it.
func TestRelateAfterWrap(t *testing.T) {
	type process struct {
		born   Born
		parent int
		parts  Parts
	}
	list := []process{ // by their ids, as the kernel lists a cgroup of version 1
		{Born{100, 301}, 20, Parts{1, 2, 30, 40}},
		{Born{100, 302}, 20, Parts{1, 21, 3, 41}},
		{Born{100, 303}, 20, Parts{1, 2, 31, 4}},
		{Born{99, 32760}, 20, Parts{1, 2, 3, 4}},
	}
	relate := func() []Relation {
		var kin []Kin
		var parts []Parts
		for _, p := range list {
			kin, parts = append(kin, Kin{Pid: p.born.Pid, Parent: p.parent}), append(parts, p.parts)
		}
		return RelateBy(kin, parts)
	}
	torn := func(r Relation) bool { return r.Torn }
	if !slices.ContainsFunc(relate(), torn) {
		t.Error("the order does not matter, and this test shows nothing")
	}
	slices.SortFunc(list, func(a, b process) int { return a.born.Compare(b.born) })
	for i, r := range relate() {
		if r.Torn || i > 0 && r.With != 0 {
			t.Errorf("process %d: %+v", list[i].born.Pid, r)
		}
	}
}
