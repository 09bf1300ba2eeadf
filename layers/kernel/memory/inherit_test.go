// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func TestSharedPage(t *testing.T) {
	const page = entryPresent | 77
	for name, c := range map[string]struct {
		a, b uint64
		want bool
	}{
		"same frame":    {page, page, true},
		"other frame":   {page, page + 1, false},
		"exclusive":     {page | entryExclusive, page, false},
		"of a file":     {page | entryFile, page | entryFile, false},
		"hidden frames": {entryPresent, entryPresent, false},
		"same swap":     {entrySwapped | 5, entrySwapped | 5, true},
		"one swapped":   {entrySwapped | 77, page, false},
		"nothing there": {0, 0, false},
	} {
		if sharedPage(c.a, c.b) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}

func TestWithout(t *testing.T) {
	got := without(run{10, 100}, []run{{0, 5}, {8, 20}, {30, 40}, {90, 200}, {300, 400}})
	if !slices.Equal(got, []run{{20, 30}, {40, 90}}) {
		t.Errorf("%v", got)
	}
	if got := without(run{10, 20}, nil); !slices.Equal(got, []run{{10, 20}}) {
		t.Errorf("%v", got)
	}
	if got := without(run{10, 20}, []run{{5, 25}}); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

// importer is a subsystem that has process 1's memory and expects process 2's.
func importer() (*Subsystem, *layout) {
	s := New(target.Env{Frame: &target.Frame{}})
	s.imports[1] = &layout{mapped: true, space: &state.AddressSpace{}, mappings: []*state.Mapping{anon(0x10000, 16), anon(0x40000, 16)}}
	l := &layout{space: &state.AddressSpace{Mappings: 1}}
	s.imports[2] = l
	return s, l
}

// TestHostileInheritanceIsRefused lists what a forged image may try.
func TestHostileInheritanceIsRefused(t *testing.T) {
	pages := func(list ...uint64) (out []*state.Range) {
		for i := 0; i < len(list); i += 2 {
			out = append(out, &state.Range{Start: list[i], Length: list[i+1]})
		}
		return out
	}
	for name, m := range map[string]*state.Inherited{
		"from itself":      {From: 2, Range: pages(0x10000, pageSize)},
		"from nobody":      {From: 9, Range: pages(0x10000, pageSize)},
		"outside":          {From: 1, Range: pages(0x30000, pageSize)},
		"across":           {From: 1, Range: pages(0x1f000, 2*pageSize)},
		"unaligned":        {From: 1, Range: pages(0x10001, pageSize)},
		"no length":        {From: 1, Range: pages(0x10000, 0)},
		"wraps":            {From: 1, Range: pages(0x10000, ^uint64(0)&^0xfff)},
		"descending":       {From: 1, Range: pages(0x40000, pageSize, 0x10000, pageSize)},
		"twice":            {From: 1, Range: pages(0x10000, 2*pageSize, 0x11000, pageSize)},
		"one of the frame": {From: 1, Range: pages(0x7fff00000000, pageSize)},
	} {
		s, l := importer()
		if err := s.receiveInherited(l, 2, marshal(t, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := &state.Inherited{From: 1, Range: pages(0x10000, pageSize, 0x12000, 2*pageSize, 0x40000, pageSize)}
	s, l := importer()
	if err := s.receiveInherited(l, 2, marshal(t, good)); err != nil {
		t.Errorf("as the export describes it: %v", err)
	}
	l.mapped = true
	if err := s.receiveInherited(l, 2, marshal(t, good)); err == nil {
		t.Error("accepted behind the mappings")
	}
	// Its own mappings have to hold what it inherits.
	l.mappings = []*state.Mapping{anon(0x10000, 1)}
	if err := s.settleInherited(nil, l, nil); err == nil {
		t.Error("inherited pages outside of the mappings: accepted")
	}
}

// TestKeep: only what was made of the same kind of mapping stays as it is.
func TestKeep(t *testing.T) {
	task := &target.Task{ID: 2}
	for name, change := range map[string]func(m *state.Mapping){
		"same":        func(*state.Mapping) {},
		"protection":  func(m *state.Mapping) { m.Protection = 1 },
		"name":        func(m *state.Mapping) { m.Name = "x" },
		"no reserve":  func(m *state.Mapping) { m.NoReserve = true },
		"grows down":  func(m *state.Mapping) { m.GrowsDown = true },
		"larger":      func(m *state.Mapping) { m.Length += pageSize },
		"file":        func(m *state.Mapping) { m.Backing, m.Path = state.Backing_BACKING_FILE, "/x" },
		"huge pages":  func(m *state.Mapping) { m.Advice = []uint32{14} },
		"not touched": func(m *state.Mapping) { m.Start, m.Length = 0x18000, pageSize },
	} {
		s, l := importer()
		m := anon(0x10000, 16)
		change(m)
		l.mappings = []*state.Mapping{m}
		l.inherits = []inherited{{from: 1, runs: []run{{0x10000, 0x12000}}}}
		s.copies[task] = ancestry{s.imports[1], 0}
		want := name == "same" || name == "protection" || name == "name"
		if got := len(s.keep(task, l)) == 1; got != want {
			t.Errorf("%s: kept %v", name, got)
		}
		s.imports[1].version.Add(1) // it was written to after the fork
		if len(s.keep(task, l)) > 0 {
			t.Errorf("%s: kept what has changed", name)
		}
	}
}

func FuzzInherited(f *testing.F) {
	b, _ := proto.Marshal(&state.Inherited{From: 1, Range: []*state.Range{{Start: 0x10000, Length: pageSize}}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, l := importer()
		if s.receiveInherited(l, record.ProcessID(2), payload) != nil {
			return
		}
		last := uint64(0)
		for _, r := range l.inherits[0].runs {
			if r.start < last || r.end <= r.start || !s.imports[1].contains(r) {
				t.Fatalf("run %#x-%#x", r.start, r.end)
			}
			last = r.end
		}
	})
}

// TestRunsOfChunksAscend: full records come first, and yet what is planned anew
// from them has its runs in order.
func TestRunsOfChunksAscend(t *testing.T) {
	var pl planner
	for at := uint64(0); at < 40<<20; at += 3 << 20 {
		pl.add(at, at+pageSize)
		pl.add(at+2*pageSize, at+2*pageSize+chunkBytes/2)
	}
	pl.add(100<<20, 100<<20+2*chunkBytes)
	pl.close()
	fullFirst(pl.chunks)
	var again planner
	last, bytes := uint64(0), uint64(0)
	for _, r := range runsOf(pl.chunks) {
		if r.start < last {
			t.Fatalf("%#x comes behind %#x", r.start, last)
		}
		again.add(r.start, r.end)
		last, bytes = r.end, bytes+r.bytes()
	}
	again.close()
	var planned uint64
	for _, c := range again.chunks {
		planned += c.bytes
	}
	if planned != bytes || bytes != 14*(pageSize+chunkBytes/2)+2*chunkBytes {
		t.Errorf("%d bytes of %d", planned, bytes)
	}
}
