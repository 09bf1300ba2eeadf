// SPDX-License-Identifier: Apache-2.0

package file

import (
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func encode(t testing.TB, entity uint64, m proto.Message) *record.Record {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Record{Header: record.Header{Subsystem: Name, Entity: entity}, Payload: b}
}

func TestHostileOpenFilesAreRefused(t *testing.T) {
	regular := state.FileType_FILE_TYPE_REGULAR
	for name, f := range map[string]*state.OpenFile{
		"no type":              {Path: "/x"},
		"unknown type":         {Type: 99, Path: "/x"},
		"relative path":        {Type: regular, Path: "etc/shadow"},
		"no path":              {Type: regular},
		"dots":                 {Type: regular, Path: "/a/../../etc/shadow"},
		"NUL":                  {Type: regular, Path: "/a\x00b"},
		"long path":            {Type: regular, Path: "/" + strings.Repeat("a", 4096)},
		"negative offset":      {Type: regular, Path: "/x", Offset: -1},
		"offset too large":     {Type: regular, Path: "/x", Offset: math.MaxInt64},
		"negative size":        {Type: regular, Path: "/x", Size: -1},
		"access mode 3":        {Type: regular, Path: "/x", Flags: 3},
		"unknown flags":        {Type: regular, Path: "/x", Flags: 1 << 31},
		"device":               {Type: state.FileType_FILE_TYPE_CHARACTER, Path: "/dev/mem", Device: unix.Mkdev(1, 1)},
		"standard stream 3":    {Type: state.FileType_FILE_TYPE_STDIO, Stdio: 3},
		"object 0":             {Type: state.FileType_FILE_TYPE_OBJECT},
		"flock mode":           {Type: regular, Path: "/x", Flock: 8},
		"lease":                {Type: regular, Path: "/x", Lease: 3},
		"lock range too large": {Type: regular, Path: "/x", OfdLock: []*state.RangeLock{{Start: 1 << 63}}},
		"lock range overflow":  {Type: regular, Path: "/x", OfdLock: []*state.RangeLock{{Start: 1<<63 - 1, Length: 1<<63 - 1}}},
	} {
		if _, err := decodeOpen(encode(t, 1, f)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := &state.OpenFile{Type: regular, Path: "/var/log/x y (deleted)", Flags: unix.O_WRONLY | unix.O_APPEND | 0x8000, Offset: 5, Size: 3}
	if _, err := decodeOpen(encode(t, 1, good)); err != nil {
		t.Errorf("a file as the export describes it: %v", err)
	}
	if _, err := decodeOpen(encode(t, 0, good)); err == nil {
		t.Error("description 0 accepted")
	}
}

func TestHostileTablesAreRefused(t *testing.T) {
	for name, m := range map[string]*state.DescriptorTable{
		"number too large": {Slot: []*state.DescriptorSlot{{Fd: maxFD, Description: 1}}},
		"description 0":    {Slot: []*state.DescriptorSlot{{Fd: 1}}},
		"lock":             {PosixLock: []*state.RangeLock{{Fd: maxFD}}},
	} {
		if _, err := decodeTable(encode(t, 0, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestHostileThreadTablesAreRefused: tables of no thread, or that begin nowhere.
func TestHostileThreadTablesAreRefused(t *testing.T) {
	good := &state.DescriptorTable{Slot: []*state.DescriptorSlot{{Fd: 3, Description: 1}}}
	if tid, m, err := decodeThreadTable(encode(t, 7<<threadShift|3, good)); err != nil || tid != 7 || len(m.Slot) != 1 {
		t.Errorf("a good one: thread %d, %v, %v", tid, m, err)
	}
	for _, entity := range []uint64{0, 3, (maxThread + 1) << threadShift, 7<<threadShift | maxFD, math.MaxUint64} {
		if _, _, err := decodeThreadTable(encode(t, entity, good)); err == nil {
			t.Errorf("entity %#x: accepted", entity)
		}
	}
	if _, _, err := decodeThreadTable(encode(t, 7<<threadShift, &state.DescriptorTable{Slot: []*state.DescriptorSlot{{Fd: maxFD, Description: 1}}})); err == nil {
		t.Error("a descriptor beyond all limits: accepted")
	}
	r := encode(t, 7<<threadShift, good)
	r.Kind = KindThreadTable
	if _, err := New(target.Env{}).receive(r); err == nil {
		t.Error("a thread's table of no process: accepted")
	}
}

func TestHostileObjectsAreRefused(t *testing.T) {
	for name, m := range map[string]*state.FileObject{
		"memfd's name":   {Memfd: true, Path: strings.Repeat("a", 250)},
		"named":          {Path: "/a", Named: true},
		"relative":       {Path: "tmp/x"},
		"size":           {Path: "/x", Size: target.MaxSize + 1},
		"mode":           {Path: "/x", Mode: 0o100644},
		"unknown seals":  {Memfd: true, Path: "a", Seals: 0x40},
		"negative size":  {Path: "/x", Size: -1},
		"path with dots": {Path: "/x/./y"},
		"huge and small": {Memfd: true, Path: "x", HugePageSize: 2 << 20},
		"huge pages":     {Path: "x", HugePageSize: 4096},
		"part of one":    {Path: "x", HugePageSize: 2 << 20, Size: 3 << 20},
		"huge's name":    {Path: strings.Repeat("a", 250), HugePageSize: 2 << 20},
	} {
		if _, err := target.DecodeObject(encode(t, 1, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := target.DecodeObject(encode(t, target.MaxObjects+1, &state.FileObject{Path: "/x"})); err == nil {
		t.Error("an object number that contents cannot name was accepted")
	}
}

func TestContentEntities(t *testing.T) {
	for _, object := range []uint64{1, 77, target.MaxObjects} {
		for _, offset := range []int64{0, target.ContentGrain, 512 << 10, target.MaxSize - target.ContentGrain} {
			if o, at := target.SplitContentEntity(target.ContentEntity(object, offset)); o != object || at != offset {
				t.Errorf("object %d at %d came back as %d at %d", object, offset, o, at)
			}
		}
	}
}

// What a decoder lets through keeps the promises that later stages rely on.
func FuzzDecode(f *testing.F) {
	f.Add(uint32(KindOpen), uint64(1), encode(f, 1, &state.OpenFile{Type: state.FileType_FILE_TYPE_REGULAR, Path: "/x"}).Payload)
	f.Add(uint32(KindTable), uint64(0), encode(f, 0, &state.DescriptorTable{Slot: []*state.DescriptorSlot{{Fd: 3, Description: 7}}}).Payload)
	f.Add(uint32(KindThreadTable), uint64(7)<<threadShift|3, encode(f, 0, &state.DescriptorTable{Slot: []*state.DescriptorSlot{{Fd: 3, Description: 7}}}).Payload)
	f.Add(uint32(KindObject), uint64(1), encode(f, 1, &state.FileObject{Path: "/x"}).Payload)
	f.Add(uint32(KindWorking), uint64(0), encode(f, 0, &state.WorkingFiles{Cwd: "/", Root: "/"}).Payload)
	f.Fuzz(func(t *testing.T, kind uint32, entity uint64, payload []byte) {
		r := &record.Record{Header: record.Header{Subsystem: Name, Kind: kind, Entity: entity}, Payload: payload}
		switch kind {
		case KindTable:
			if m, err := decodeTable(r); err == nil {
				for _, s := range m.Slot {
					if s.Fd >= maxFD || s.Description == 0 {
						t.Fatalf("slot %v", s)
					}
				}
			}
		case KindThreadTable:
			if tid, m, err := decodeThreadTable(r); err == nil && (tid < 1 || tid > maxThread || slices.ContainsFunc(m.Slot, func(s *state.DescriptorSlot) bool { return s.Fd >= maxFD })) {
				t.Fatalf("thread %d: %v", tid, m)
			}
		case KindWorking:
			if m, err := decodeWorking(r); err == nil && (m.Cwd[0] != '/' || m.Root[0] != '/') {
				t.Fatalf("directories %q %q", m.Cwd, m.Root)
			}
		case KindOpen:
			if m, err := decodeOpen(r); err == nil {
				if strings.ContainsRune(m.Path, 0) || m.Offset < 0 || openFlags(m)&(unix.O_CREAT|unix.O_TRUNC) != 0 {
					t.Fatalf("file %v", m)
				}
			}
		case KindObject:
			if m, err := target.DecodeObject(r); err == nil && (m.Size < 0 || !m.Memfd && m.Path[0] != '/') {
				t.Fatalf("object %v", m)
			}
		}
	})
}

// TestHostileThreadsAreRefused: directories of a thread that cannot be, or twice.
func TestHostileThreadsAreRefused(t *testing.T) {
	s := New(target.Env{})
	record := func(entity uint64) *record.Record {
		r := encode(t, entity, &state.WorkingFiles{Cwd: "/", Root: "/"})
		r.Kind, r.Process = KindWorking, 1
		return r
	}
	for _, entity := range []uint64{0, 7, maxThread} {
		if _, err := s.receive(record(entity)); err != nil {
			t.Errorf("thread %d: %v", entity, err)
		}
	}
	for _, entity := range []uint64{7, maxThread + 1, math.MaxUint64} {
		if _, err := s.receive(record(entity)); err == nil {
			t.Errorf("thread %d: accepted", entity)
		}
	}
}
