// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// words are little-endian 64-bit numbers.
func words(n ...uint64) (b []byte) {
	for _, v := range n {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// TestHostileRuns: lists of pages that a forged stream may hold.
func TestHostileRuns(t *testing.T) {
	for name, b := range map[string][]byte{
		"half a run":   words(0x10000),
		"odd bytes":    words(0x10000, pageSize)[:15],
		"no page":      words(0x10001, pageSize),
		"empty":        words(0x10000, 0),
		"no whole":     words(0x10000, 100),
		"wraps":        words(userEnd-pageSize, 1<<63),
		"kernel":       words(1<<63, pageSize),
		"null page":    words(0, pageSize),
		"overlap":      words(0x10000, 2*pageSize, 0x11000, pageSize),
		"descends":     words(0x20000, pageSize, 0x10000, pageSize),
		"far too many": make([]byte, 16*(maxDropped+1)),
	} {
		if runs, err := decodeRuns(b); err == nil {
			t.Errorf("%s: taken for %v", name, runs)
		}
	}
	runs := []run{{0x10000, 0x12000}, {0x20000, 0x21000}}
	got, err := decodeRuns(encodeRuns(runs))
	if err != nil || len(got) != 2 || got[0] != runs[0] || got[1] != runs[1] {
		t.Errorf("%v, %v", got, err)
	}
}

// TestHostileLists: pages that are dropped or left behind lie in mappings of the
// image that may have such; nothing is done to the process otherwise.
func TestHostileLists(t *testing.T) {
	const rw = unix.PROT_READ | unix.PROT_WRITE
	private := func(start uint64, change func(*state.Mapping)) *state.Mapping {
		m := &state.Mapping{Start: start, Length: 4 * pageSize, Protection: rw, Backing: state.Backing_BACKING_ANONYMOUS}
		if change != nil {
			change(m)
		}
		return m
	}
	mapped := func() *layout {
		ms := []*state.Mapping{
			private(0x10000, nil),
			private(0x20000, func(m *state.Mapping) { m.Locked = 1 }),
			private(0x30000, func(m *state.Mapping) { m.Advice = []uint32{unix.MADV_WIPEONFORK} }),
			private(0x40000, func(m *state.Mapping) { m.Protection = unix.PROT_READ }),
			{Start: 0x50000, Length: 4 * pageSize, Protection: rw, Shared: true, Backing: state.Backing_BACKING_SHARED_ANONYMOUS, Object: 1},
		}
		return &layout{space: &state.AddressSpace{Mappings: uint32(len(ms))}, mappings: ms, mapped: true}
	}
	s := New(target.Env{Frame: &target.Frame{}})
	for name, c := range map[string]struct {
		kind  uint32
		start uint64
		long  uint64
		spoil func(*layout)
	}{
		"dropped outside":        {KindDropped, 0x60000, 1, nil},
		"dropped half outside":   {KindDropped, 0x13000, 2, nil},
		"dropped shared":         {KindDropped, 0x50000, 1, nil},
		"dropped before":         {KindDropped, 0x10000, 1, func(l *layout) { l.mapped = false }},
		"left outside":           {KindLeft, 0x60000, 1, nil},
		"left locked":            {KindLeft, 0x20000, 1, nil},
		"left that a fork wipes": {KindLeft, 0x30000, 1, nil},
		"left read-only":         {KindLeft, 0x40000, 1, nil},
		"left shared":            {KindLeft, 0x50000, 1, nil},
		"left before":            {KindLeft, 0x10000, 1, func(l *layout) { l.mapped = false }},
		"left too late":          {KindLeft, 0x10000, 1, func(l *layout) { l.built = true }},
		"left twice":             {KindLeft, 0x10000, 1, func(l *layout) { l.left = pageSet{{0x10000, 0x12000}} }},
	} {
		l := mapped()
		if c.spoil != nil {
			c.spoil(l)
		}
		in := &record.Record{
			Header:  record.Header{Subsystem: Name, Process: 1, Kind: c.kind, Entity: c.start},
			Payload: encodeRuns([]run{{c.start, c.start + c.long*pageSize}}),
		}
		receive := s.receiveDropped
		if c.kind == KindLeft {
			receive = s.receiveLeft
		}
		if err := receive(nil, l, in); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
