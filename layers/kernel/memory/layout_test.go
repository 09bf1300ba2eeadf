// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func anon(start, pages uint64) *state.Mapping {
	return &state.Mapping{Start: start, Length: pages * pageSize, Protection: 3, Backing: state.Backing_BACKING_ANONYMOUS}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// receiveAll feeds a layout as an import would.
func receiveAll(t *testing.T, sp *state.AddressSpace, ms ...*state.Mapping) (*layout, error) {
	t.Helper()
	l := &layout{}
	if err := l.receiveSpace(marshal(t, sp)); err != nil {
		return l, err
	}
	whole, err := l.receiveMappings(marshal(t, &state.Mappings{Mapping: ms}))
	if err == nil && !whole {
		err = errors.New("not whole")
	}
	return l, err
}

// TestHostileLayoutIsRefused lists what a forged image may try.
func TestHostileLayoutIsRefused(t *testing.T) {
	good := func() *state.AddressSpace {
		return &state.AddressSpace{Mappings: 1, Exe: "/bin/x", VdsoStart: 0x7fff00000000, VdsoLength: 0x8000}
	}
	if _, err := receiveAll(t, good(), anon(0x10000, 4)); err != nil {
		t.Fatalf("a valid layout: %v", err)
	}
	if sp := good(); true {
		sp.MlockFuture = 1 // MCL_CURRENT
		if _, err := receiveAll(t, sp, anon(0x10000, 4)); err == nil {
			t.Error("mlockall flags: accepted")
		}
	}
	file := func(change func(*state.Mapping)) *state.Mapping {
		m := &state.Mapping{Start: 0x10000, Length: pageSize, Protection: 5, Backing: state.Backing_BACKING_FILE, Path: "/lib/x.so"}
		change(m)
		return m
	}
	cases := map[string]*state.Mapping{
		"ring of no events": {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_AIO, Shared: true},
		"ring of any size":  {Start: 0x10000, Length: 2 * pageSize, Backing: state.Backing_BACKING_AIO, Shared: true, Object: 127},
		"half an event":     {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_AIO, Shared: true, Object: 127, AioEvents: make([]byte, 16)},
		"private segment":   {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_SYSV},
		"segment's offset":  {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_SYSV, Shared: true, Offset: 0x20000},
		"segment's id":      {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_SYSV, Shared: true, Object: 1 << 31},
		"object without id": {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_OBJECT},
		"object grows down": {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_OBJECT, Object: 1, GrowsDown: true},
		"object's offset":   {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_OBJECT, Object: 1, Offset: 1},
		"zero length":       {Start: 0x10000, Backing: state.Backing_BACKING_ANONYMOUS},
		"unaligned":         {Start: 0x10001, Length: pageSize, Backing: state.Backing_BACKING_ANONYMOUS},
		"page zero":         anon(0, 1),
		"kernel":            anon(userEnd-pageSize, 2),
		"wraps":             {Start: 0x10000, Length: ^uint64(0) &^ 0xfff, Backing: state.Backing_BACKING_ANONYMOUS},
		"over the vDSO":     anon(0x7fff00007000, 1),
		"protection":        {Start: 0x10000, Length: pageSize, Protection: 8, Backing: state.Backing_BACKING_ANONYMOUS},
		"unknown backing":   {Start: 0x10000, Length: pageSize, Backing: 99},
		"relative path":     file(func(m *state.Mapping) { m.Path = "lib/x.so" }),
		"dot dot":           file(func(m *state.Mapping) { m.Path = "/../../etc/shadow" }),
		"NUL":               file(func(m *state.Mapping) { m.Path = "/lib/x\x00y" }),
		"offset":            file(func(m *state.Mapping) { m.Offset = 7 }),
		"advice":            {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_ANONYMOUS, Advice: []uint32{4}},
		"guard outside":     {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_ANONYMOUS, Guard: []*state.Range{{Start: 0x20000, Length: pageSize}}},
		"shared anonymous":  {Start: 0x10000, Length: pageSize, Shared: true, Backing: state.Backing_BACKING_ANONYMOUS},
		"many nodes":        {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_ANONYMOUS, MemoryPolicy: 2, MemoryNodes: make([]byte, nodeBytes+1)},
		"nodes of nothing":  {Start: 0x10000, Length: pageSize, Backing: state.Backing_BACKING_ANONYMOUS, MemoryNodes: []byte{1}},
		"locked":            {Start: 0x10000, Length: pageSize, Locked: 3, Backing: state.Backing_BACKING_ANONYMOUS},
		"growing file":      file(func(m *state.Mapping) { m.GrowsDown = true }),
		"offset wraps":      file(func(m *state.Mapping) { m.Offset = ^uint64(0) &^ 0xfff; m.Length = 2 * pageSize }),
		"backing not given": {Start: 0x10000, Length: pageSize},
	}
	for name, m := range cases {
		if _, err := receiveAll(t, good(), m); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*state.AddressSpace){
		"no mappings":       func(s *state.AddressSpace) { s.Mappings = 0 },
		"too many mappings": func(s *state.AddressSpace) { s.Mappings = maxMappings + 1 },
		"auxv":              func(s *state.AddressSpace) { s.Auxv = make([]byte, maxAuxv+16) },
		"exe":               func(s *state.AddressSpace) { s.Exe = "../x" },
		"vdso":              func(s *state.AddressSpace) { s.VdsoStart = 5 },
	} {
		sp := good()
		change(sp)
		if _, err := receiveAll(t, sp, anon(0x10000, 1)); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPagesStayInsideTheirMappings: what an image writes can never be the
// engine's memory in the task.
func TestPagesStayInsideTheirMappings(t *testing.T) {
	shared := &state.Mapping{Start: 0x40000, Length: pageSize, Shared: true, Protection: 3, Backing: state.Backing_BACKING_FILE, Path: "/f"}
	l, err := receiveAll(t, &state.AddressSpace{Mappings: 4, Exe: "/x"}, anon(0x10000, 2), anon(0x12000, 1), anon(0x20000, 1), shared)
	if err != nil {
		t.Fatal(err)
	}
	l.mapped = true
	for _, c := range []struct {
		start, pages uint64
		ok           bool
	}{
		{0x10000, 1, true}, {0x10000, 3, true}, {0x11000, 2, true}, {0x20000, 1, true},
		{0x10000, 4, false}, {0xf000, 1, false}, {0x13000, 1, false}, {0x20000, 2, false},
		{0x1f000, 2, false}, {0x40000, 1, false}, {0x30000000000, 1, false},
	} {
		r := &record.Record{Header: record.Header{Subsystem: Name, Process: 1, Kind: KindPages, Entity: c.start}, Payload: make([]byte, c.pages*pageSize)}
		if _, _, err := l.pageRuns(r); (err == nil) != c.ok {
			t.Errorf("%d pages at %#x: %v", c.pages, c.start, err)
		}
	}
}
