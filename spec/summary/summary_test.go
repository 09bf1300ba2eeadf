// SPDX-License-Identifier: Apache-2.0

package summary

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// The last layout is the process's; pages that early rounds have copied are counted
// with the mapping that holds them in the end.
func TestEarlyRounds(t *testing.T) {
	var p Process
	read := func(kind uint32, entity uint64, m proto.Message, pages int) {
		t.Helper()
		payload := make([]byte, pages*4096)
		if m != nil {
			var err error
			if payload, err = proto.Marshal(m); err != nil {
				t.Fatal(err)
			}
		}
		r := &record.Record{Header: record.Header{Subsystem: "memory", Process: 1, Kind: kind, Entity: entity}, Payload: payload}
		if err := p.memory(r); err != nil {
			t.Fatal(err)
		}
	}
	heap, gone, text := &state.Mapping{Start: 0x10000, Length: 0x8000}, &state.Mapping{Start: 0x20000, Length: 0x1000}, &state.Mapping{Start: 0x400000, Length: 0x1000}
	read(memoryAddressSpace, 0, &state.AddressSpace{Exe: "/early"}, 0)
	read(memoryMappings, 0, &state.Mappings{Mapping: []*state.Mapping{heap, gone}}, 0)
	read(memoryPages, 0x10000, nil, 4)
	read(memoryPages, 0x20000, nil, 1)
	read(memoryAddressSpace, 0, &state.AddressSpace{Exe: "/program"}, 0)
	read(memoryMappings, 0, &state.Mappings{Mapping: []*state.Mapping{heap, text}}, 0)
	read(memoryPages, 0x11000, nil, 1)
	want := []Mapping{{Start: 0x10000, Length: 0x8000, Permissions: "---p", Bytes: 5 << 12}, {Start: 0x400000, Length: 0x1000, Permissions: "---p"}}
	if len(p.Mappings) != 2 || p.Mappings[0] != want[0] || p.Mappings[1] != want[1] || p.Executable != "/program" {
		t.Errorf("%s holds %+v, want %+v", p.Executable, p.Mappings, want)
	}
}

// TestDescriptors: those of all tables of a process count.
func TestDescriptors(t *testing.T) {
	payload, err := proto.Marshal(&state.DescriptorTable{Slot: []*state.DescriptorSlot{{Fd: 3, Description: 1}, {Fd: 4, Description: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	var im Image
	for _, h := range []record.Header{{Kind: fileTable}, {Kind: fileThreadTable, Entity: 7<<32 | 3}, {Kind: 2}} {
		h.Subsystem, h.Process = "file", 1
		if err := im.Add(&record.Record{Header: h, Payload: payload}); err != nil {
			t.Fatal(err)
		}
	}
	if n := im.Processes[0].FDs; n != 4 {
		t.Errorf("%d descriptors, want 4", n)
	}
}
