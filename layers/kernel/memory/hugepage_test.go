// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	huge2M = 2 << 20
	huge1G = 1 << 30
)

// hugeMapping is one of private huge pages, changed a little.
func hugeMapping(change func(*state.Mapping)) *state.Mapping {
	m := &state.Mapping{Start: 1 << 30, Length: 4 * huge2M, Protection: 3, Backing: state.Backing_BACKING_HUGETLB, HugePageSize: huge2M}
	if change != nil {
		change(m)
	}
	return m
}

// TestHostileHugePages: what a forged image may say of huge pages.
func TestHostileHugePages(t *testing.T) {
	shared := func(m *state.Mapping) { m.Shared, m.Object, m.Offset = true, 1, huge2M }
	object := func(m *state.Mapping) { m.Backing, m.Object, m.Offset = state.Backing_BACKING_OBJECT, 1, huge2M }
	sysv := func(m *state.Mapping) { shared(m); m.Backing = state.Backing_BACKING_SYSV }
	file := func(m *state.Mapping) { m.Backing, m.Path, m.Offset = state.Backing_BACKING_FILE, "/huge/x", huge2M }
	for name, change := range map[string]func(*state.Mapping){"private": nil, "shared": shared, "memfd": object, "System V": sysv, "file": file} {
		if err := validMapping(hugeMapping(change)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*state.Mapping){
		"no size":           func(m *state.Mapping) { m.HugePageSize = 0 },
		"small":             func(m *state.Mapping) { m.HugePageSize = pageSize },
		"no power of two":   func(m *state.Mapping) { m.HugePageSize = 3 << 20; m.Start, m.Length = 3<<29, 6<<20 },
		"far too large":     func(m *state.Mapping) { m.HugePageSize = 1 << 40 },
		"start":             func(m *state.Mapping) { m.Start += pageSize },
		"length":            func(m *state.Mapping) { m.Length -= pageSize },
		"offset":            func(m *state.Mapping) { shared(m); m.Offset += pageSize },
		"offset wraps":      func(m *state.Mapping) { shared(m); m.Offset = ^uint64(huge2M - 1) },
		"offset of private": func(m *state.Mapping) { m.Offset = huge2M },
		"private object":    func(m *state.Mapping) { m.Object = 1 },
		"shared of nothing": func(m *state.Mapping) { m.Shared = true },
		"grows down":        func(m *state.Mapping) { m.GrowsDown = true },
		"guards":            func(m *state.Mapping) { m.Guard = []*state.Range{{Start: m.Start, Length: huge2M}} },
		"memfd's offset":    func(m *state.Mapping) { object(m); m.Offset += pageSize },
		"segment's offset":  func(m *state.Mapping) { sysv(m); m.Offset += pageSize },
		"segment's length":  func(m *state.Mapping) { sysv(m); m.Length -= pageSize },
		"private segment":   func(m *state.Mapping) { sysv(m); m.Shared = false },
		"of small memory":   func(m *state.Mapping) { m.Backing = state.Backing_BACKING_ANONYMOUS },
		"file's offset":     func(m *state.Mapping) { file(m); m.Offset += pageSize },
		"file's start":      func(m *state.Mapping) { file(m); m.Start += pageSize },
		"file's page":       func(m *state.Mapping) { file(m); m.HugePageSize = 3 << 20 },
	} {
		if err := validMapping(hugeMapping(change)); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkHuge([]*state.Mapping{hugeMapping(func(m *state.Mapping) { m.HugePageSize = 16 << 30 })}); err == nil || !strings.Contains(err.Error(), "16 GB") {
		t.Errorf("a size that no kernel of this architecture has: %v", err)
	}
}

// What smaps shows is what is mapped again, or is refused by name.
func TestHugeMappingsAreClassified(t *testing.T) {
	flags := procfs.VMHugeTLB | procfs.VMMayWrite
	shown := func(kind procfs.MapKind, shared bool, flags procfs.VMFlags) *procfs.SmapsMapping {
		m := &procfs.SmapsMapping{Flags: flags, KernelPageSize: huge2M}
		m.Start, m.End, m.Offset, m.Inode, m.Kind, m.Shared, m.Path = huge1G, huge1G+2*huge2M, huge2M, 7, kind, shared, "/memfd:x"
		return m
	}
	for _, c := range []struct {
		m       *procfs.SmapsMapping
		backing state.Backing
		refused string
	}{
		{shown(procfs.MapHugeAnon, false, flags), state.Backing_BACKING_HUGETLB, ""},
		{shown(procfs.MapHugeAnon, true, flags|procfs.VMNoReserve), state.Backing_BACKING_HUGETLB, ""},
		{shown(procfs.MapMemfd, true, flags), state.Backing_BACKING_FILE, ""}, // which becomes an object
		{shown(procfs.MapSysV, true, flags), state.Backing_BACKING_SYSV, ""},
		{shown(procfs.MapFile, true, flags), state.Backing_BACKING_FILE, ""},
		{shown(procfs.MapAIO, true, flags), 0, "not carried"},
		{shown(procfs.MapHugeAnon, false, 0), 0, "not carried"}, // a file of this name
		{shown(procfs.MapHugeAnon, false, flags|procfs.VMUffdMissing), 0, "userfaultfd"},
	} {
		_, m, err := classify(c.m)
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s %v: %v, want %q", c.m.Kind, c.m.Shared, err, c.refused)
			}
			continue
		}
		if err != nil || m.Backing != c.backing || m.HugePageSize != huge2M || m.NoReserve != c.m.Flags.Has(procfs.VMNoReserve) {
			t.Errorf("%s: %v, %v", c.m.Kind, m, err)
			continue
		}
		if c.m.Kind == procfs.MapHugeAnon && (m.Shared != (m.Object == 7) || m.Shared != (m.Offset == huge2M)) {
			t.Errorf("object and offset of %v", m)
		}
		if isEarly(m) || leavable(m) || !m.Shared && m.Backing != state.Backing_BACKING_FILE && validMapping(m) != nil {
			t.Errorf("%v is copied ahead, left behind or not valid", m)
		}
	}
}

// Private pages are mapped with their size, and others by their descriptors.
func TestHugeFlags(t *testing.T) {
	const all = unix.MAP_HUGETLB | unix.MAP_HUGE_2MB | unix.MAP_ANONYMOUS
	call := mmapCall(hugeMapping(func(m *state.Mapping) { m.NoReserve = true }), -1)
	if flags := call.Args[3]; flags&all != all || flags&unix.MAP_NORESERVE == 0 {
		t.Errorf("private: flags %#x", flags)
	}
	call = mmapCall(hugeMapping(func(m *state.Mapping) { m.Shared, m.Object = true, 1 }), 5)
	if flags := call.Args[3]; flags&all != 0 || flags&unix.MAP_NORESERVE != 0 || call.Args[4] != 5 {
		t.Errorf("shared: flags %#x, descriptor %d", flags, call.Args[4])
	}
}

func TestHugePagesOfRuns(t *testing.T) {
	ms := []*state.Mapping{
		anon(huge1G-pageSize, 1),
		hugeMapping(nil),
		hugeMapping(func(m *state.Mapping) { m.Start, m.Shared, m.Object = huge1G+4*huge2M, true, 1 }),
		hugeMapping(func(m *state.Mapping) { m.Start = huge1G + 8*huge2M }),
	}
	for _, c := range []struct {
		runs []run
		want pageSet
	}{
		{[]run{{huge1G - pageSize, huge1G}}, nil},
		{[]run{{huge1G - pageSize, huge1G + pageSize}}, pageSet{{huge1G, huge1G + huge2M}}},
		{[]run{{huge1G + pageSize, huge1G + 2*pageSize}, {huge1G + 3*pageSize, huge1G + huge2M + pageSize}}, pageSet{{huge1G, huge1G + 2*huge2M}}},
		{[]run{{huge1G + 3*huge2M, huge1G + 9*huge2M}}, pageSet{{huge1G + 3*huge2M, huge1G + 4*huge2M}, {huge1G + 8*huge2M, huge1G + 9*huge2M}}},
	} {
		if got := hugePagesOf(ms, c.runs); !slices.Equal(got, c.want) {
			t.Errorf("%x: %x, want %x", c.runs, got, c.want)
		}
	}
}

// usage notes a mapping of huge pages.
func usage(h *hugeNeed, pid int, inode, offset, pages uint64, shared bool, flags procfs.VMFlags, present uint64) {
	m := &procfs.SmapsMapping{Flags: procfs.VMHugeTLB | flags, KernelPageSize: huge2M, PrivateHugetlb: present * huge2M}
	m.Start, m.End, m.Offset, m.Inode, m.Shared = huge1G, huge1G+pages*huge2M, offset*huge2M, inode, shared
	h.note(pid, m)
}

func newNeed() *hugeNeed { return &hugeNeed{asked: make(chan struct{})} }

// What is needed is what was reserved, once for all that share it, or what is there.
func TestHugeNeeds(t *testing.T) {
	h := newNeed()
	end := h.ask()
	usage(h, 1, 10, 0, 4, false, 0, 1)
	usage(h, 2, 10, 0, 4, false, 0, 1)                   // a fork
	usage(h, 1, 11, 0, 3, true, 0, 0)                    // shared
	usage(h, 2, 11, 2, 3, true, 0, 0)                    // and elsewhere
	usage(h, 1, 12, 0, 50, false, procfs.VMNoReserve, 2) // 2 of 50
	usage(h, 1, 12, 50, 50, false, procfs.VMNoReserve, 1)
	h.note(1, &procfs.SmapsMapping{KernelPageSize: pageSize})
	end()
	if n := h.needs(); len(n) != 1 || n[huge2M] != 4+5+3 {
		t.Errorf("needs %v", n)
	}
	if err := h.promised(false); err != nil {
		t.Errorf("an image: %v", err)
	}
	if err := h.promised(true); err == nil {
		t.Error("a destination that has said nothing gets huge pages")
	}
	if err := newNeed().promised(true); err != nil {
		t.Errorf("a container without: %v", err)
	}
}

// System V shared memory needs all of its pages, wherever and in how many parts it is
// attached, and a destination that says that it carries it.
func TestHugeSegmentsAreNeeded(t *testing.T) {
	h := newNeed()
	end := h.ask()
	m := &procfs.SmapsMapping{Flags: procfs.VMHugeTLB, KernelPageSize: huge2M, PrivateHugetlb: huge2M}
	m.Start, m.End, m.Shared, m.Kind = huge1G, huge1G+huge2M, true, procfs.MapSysV
	h.note(1, m)
	h.noteSegments([]target.HugeSegment{{ID: 1, Size: 3 * huge2M, Page: huge2M}, {ID: 2, Size: huge2M, Page: huge2M}, {ID: 3, Size: huge1G, Page: huge1G}})
	end()
	if n := h.needs(); len(n) != 2 || n[huge2M] != 4 || n[huge1G] != 1 {
		t.Errorf("needs %v", n)
	}
	s := New(target.Env{Source: &target.Source{}})
	s.huge.noteSegments([]target.HugeSegment{{ID: 1, Size: huge2M, Page: huge2M}})
	close(s.huge.asked)
	ask := func(verb string, body []byte) {
		t.Helper()
		if _, err := s.Command(t.Context(), record.Command{To: Name, Verb: verb, Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.huge.promised(true); err == nil {
		t.Error("a destination that has said nothing gets huge pages")
	}
	ask(verbHuge, encodeHuge(map[uint64]uint64{huge2M: 1}))
	if err := s.huge.promised(true); err == nil || !strings.Contains(err.Error(), "SHM_HUGETLB") {
		t.Errorf("a destination of the version before this one: %v", err)
	}
	ask(verbHugeSegments, nil)
	if err := s.huge.promised(true); err != nil {
		t.Error(err)
	}
}

// Files on a hugetlbfs need the pages that are there, those that their mappings have
// reserved, and in all what their file system keeps for them.
func TestHugeFilesAreNeeded(t *testing.T) {
	h := newNeed()
	end := h.ask()
	mapped := func(pid int, inode, pages, present uint64, shared bool) {
		m := &procfs.SmapsMapping{Flags: procfs.VMHugeTLB, KernelPageSize: huge2M, PrivateHugetlb: present * huge2M}
		m.Start, m.End, m.Inode, m.Shared, m.Kind = huge1G, huge1G+pages*huge2M, inode, shared, procfs.MapFile
		m.Dev = procfs.Dev{Minor: 7}
		h.note(pid, m)
	}
	mapped(1, 10, 3, 1, true)
	mapped(2, 10, 3, 1, true)
	mapped(1, 11, 1, 1, false) // and a copy for itself
	h.noteTrees([]target.HugeTree{
		{Dev: procfs.Dev{Minor: 7}, Page: huge2M, Least: 2 * huge2M, Files: map[uint64]uint64{10: 2 * huge2M, 11: 2 * huge2M, 12: huge2M}},
		{Dev: procfs.Dev{Minor: 8}, Page: huge2M, Least: 10 * huge2M, Files: map[uint64]uint64{10: huge2M}},
		{Dev: procfs.Dev{Minor: 9}, Page: huge1G},
	})
	end()
	if n := h.needs(); len(n) != 1 || n[huge2M] != 3+1+2+1+10 {
		t.Errorf("needs %v", n)
	}
}

// A file's pages are what the image says of them: those of a hugetlbfs that pass for
// small ones would be allocated by the engine.
func TestForgedPagesOfFilesAreRefused(t *testing.T) {
	if os.Getuid() != 0 || target.CheckHugeSize(huge2M) != nil {
		t.Skip("mounts a hugetlbfs with pages of 2 MB")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "hugetlbfs", 0, "pagesize=2M"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	self := &target.Task{Proc: procfs.Host().Process(os.Getpid())}
	for name, path := range map[string]string{"huge": filepath.Join(dir, "x"), "small": filepath.Join(t.TempDir(), "x")} {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(huge2M); err != nil {
			t.Fatal(err)
		}
		b, err := unix.Mmap(int(f.Fd()), 0, huge2M, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_NORESERVE)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(b)
		m := &state.Mapping{Start: uint64(uintptr(unsafe.Pointer(&b[0]))), Length: huge2M, Backing: state.Backing_BACKING_FILE, Path: path, FileSize: huge2M}
		for _, page := range []uint64{0, huge2M, huge1G} {
			m.HugePageSize = page
			right := (page == huge2M) == (name == "huge") && page != huge1G
			if err := checkFiles(self, &layout{mappings: []*state.Mapping{m}}); (err == nil) != right {
				t.Errorf("%s, called pages of %d: %v", name, page, err)
			}
		}
	}
}

// A forged mapping of a segment is refused before anything is attached.
func TestForgedSegmentsAreNotAttached(t *testing.T) {
	f := &target.Frame{}
	f.AddSegment(1, target.Segment{Size: 2 * huge2M, Page: huge2M})
	f.AddSegment(2, target.Segment{Size: 2 * huge2M})
	s := New(target.Env{Frame: f})
	for name, change := range map[string]func(*state.Mapping){
		"small pages of huge ones": func(m *state.Mapping) { m.HugePageSize = 0 },
		"huge pages of small ones": func(m *state.Mapping) { m.Object = 2 },
		"pages of another size":    func(m *state.Mapping) { m.HugePageSize = huge1G },
		"behind its end":           func(m *state.Mapping) { m.Offset += huge2M },
		"of nobody's":              func(m *state.Mapping) { m.Object = 3 },
	} {
		m := hugeMapping(func(m *state.Mapping) {
			m.Shared, m.Object, m.Offset, m.Length, m.Backing = true, 1, huge2M, huge2M, state.Backing_BACKING_SYSV
		})
		change(m)
		if err := s.attachSegments(nil, []*state.Mapping{m}, []*state.Mapping{m}); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The answer to a destination comes when the container was looked at, and names what
// is lacking.
func TestHugeOffer(t *testing.T) {
	for _, c := range []struct {
		free  map[uint64]uint64
		lacks string
	}{
		{map[uint64]uint64{huge2M: 4, huge1G: 0}, ""},
		{map[uint64]uint64{huge2M: 3}, "4 huge pages of 2 MB, and 3 are free"},
		{map[uint64]uint64{huge1G: 9}, "huge pages of 2 MB, a size that its kernel does not have"},
		{nil, "huge pages of 2 MB"},
	} {
		h := newNeed()
		got := make(chan string)
		go func() {
			a, err := h.answer(context.Background(), record.Command{To: Name, Verb: verbHuge, Body: encodeHuge(c.free)})
			got <- fmt.Sprint(string(a.Body), err)
		}()
		end := h.ask()
		usage(h, 1, 10, 0, 4, false, 0, 1)
		end()
		h.ask()() // a pre-flight that refuses is made again
		usage(h, 1, 10, 0, 4, false, 0, 1)
		a := strings.TrimSuffix(<-got, "<nil>")
		if (c.lacks == "") != (a == "") || !strings.Contains(a, c.lacks) {
			t.Errorf("%v: %q, want %q", c.free, a, c.lacks)
		}
		if err := h.promised(true); (err == nil) != (c.lacks == "") {
			t.Errorf("%v: promised: %v", c.free, err)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newNeed().answer(ended, record.Command{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a move that has ended: %v", err)
	}
	for name, b := range map[string][]byte{"odd": make([]byte, 15), "no size": words(3, 1), "far too many": make([]byte, 16*(maxHugeSizes+1))} {
		if free, err := decodeHuge(b); err == nil {
			t.Errorf("%s: %v", name, free)
		}
	}
}

// A version before this one refuses memfds of huge pages rather than make small ones.
func TestHugeMemfdIsNoMemfdToOthers(t *testing.T) {
	o := &state.FileObject{Path: "x", HugePageSize: huge2M, Size: huge2M}
	o.HugePageSize = 0 // which it does not know
	in := &record.Record{Header: record.Header{Entity: 1}, Payload: marshal(t, o)}
	if o, err := target.DecodeObject(in); err == nil {
		t.Errorf("it is taken for %v", o)
	}
}

// Where the pool is too small an error says how many pages were wanted, and where there
// can be more.
func TestShortageIsExplained(t *testing.T) {
	m := hugeMapping(nil)
	err := explainHuge(m, unix.ENOMEM)
	if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "4 huge pages of 2 MB are needed") || !strings.Contains(err.Error(), "hugepages-2048kB/nr_hugepages") {
		t.Error(err)
	}
	if err := explainHuge(m, unix.EEXIST); err != unix.EEXIST {
		t.Error(err)
	}
	if err := explainHuge(anon(huge1G, 1), unix.ENOMEM); err != unix.ENOMEM {
		t.Error(err)
	}
}
