// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// knowing is the subsystem of a source whose destination knows KindRepeated.
func knowing(t *testing.T) *Subsystem {
	t.Helper()
	s := New(target.Env{Source: &target.Source{}, Workers: 2})
	if _, err := s.Command(t.Context(), record.Command{To: Name, Verb: verbRepeats}); err != nil {
		t.Fatal(err)
	}
	return s
}

// mapPages maps memory for so many pages.
func mapPages(t testing.TB, pages int) []byte {
	t.Helper()
	memory, err := unix.Mmap(-1, 0, pages*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	return memory
}

func addressOf(memory []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&memory[0]))) }

// contents fills memory: page n holds what of(n) names, 0 are zeroes. With alike the
// contents differ in a word that no mark sees.
func contents(memory []byte, of func(page int) uint64, alike bool) {
	for page := range len(memory) / pageSize {
		content := memory[page*pageSize:][:pageSize]
		clear(content)
		name := of(page)
		if name == 0 {
			continue
		}
		if alike {
			for i := range content {
				content[i] = 7
			}
			binary.LittleEndian.PutUint64(content[pageSize-8:], name)
			continue
		}
		r := rand.New(rand.NewPCG(name, 1))
		for at := 0; at < pageSize; at += 8 {
			binary.LittleEndian.PutUint64(content[at:], r.Uint64())
		}
	}
}

// TestMarkSeesNotAll: the words that the test of pages with equal marks relies on are
// none that a mark reads.
func TestMarkSeesNotAll(t *testing.T) {
	memory := make([]byte, 2*pageSize)
	contents(memory, func(page int) uint64 { return uint64(page) + 1 }, true)
	if markOf(memory[:pageSize]) != markOf(memory[pageSize:]) {
		t.Fatal("the marks differ")
	}
	contents(memory, func(page int) uint64 { return uint64(page) + 1 }, false)
	if markOf(memory[:pageSize]) == markOf(memory[pageSize:]) {
		t.Fatal("the marks of different pages are the same")
	}
}

// TestRepeatsAreSentOnce: whatever pages repeat others, a destination gets the same
// bytes; what is there several times travels once; equal marks prove nothing.
func TestRepeatsAreSentOnce(t *testing.T) {
	const pages = 3*512 + 77
	memory := mapPages(t, pages)
	base := addressOf(memory)
	whole := []run{{base, base + uint64(len(memory))}}
	var gaps []run
	for at := uint64(0); at < uint64(len(memory)); at += 20 * pageSize {
		gaps = append(gaps, run{base + at, base + min(uint64(len(memory)), at+19*pageSize)})
	}
	for name, c := range map[string]struct {
		of    func(page int) uint64
		alike bool
		most  int // pages of the whole that are sent, 0: all
	}{
		"different":          {func(page int) uint64 { return uint64(page) + 1 }, false, 0},
		"all the same":       {func(int) uint64 { return 9 }, false, 1},
		"twice":              {func(page int) uint64 { return uint64(page%(pages/2+1)) + 1 }, false, pages/2 + 1},
		"neighbours":         {func(page int) uint64 { return uint64(page/2) + 1 }, false, pages/2 + 1},
		"every other":        {func(page int) uint64 { return uint64(page%2*page) + 1 }, false, pages/2 + 1},
		"the same far away":  {func(page int) uint64 { return uint64(page%800) + 1 }, false, 800},
		"zeroes, too":        {func(page int) uint64 { return uint64(page % 3) }, false, 2},
		"at random":          {func(int) uint64 { return rand.Uint64N(40) }, false, 40},
		"alike":              {func(page int) uint64 { return uint64(page) + 1 }, true, 0},
		"alike and the same": {func(page int) uint64 { return uint64(page%4) + 1 }, true, pages},
	} {
		contents(memory, c.of, c.alike)
		for _, runs := range [][]run{whole, gaps} {
			copied, sent, _, repeats := copyBy(t, knowing(t), memory, runs, pageSet(whole))
			for _, r := range runs {
				if !bytes.Equal(copied[r.start-base:r.end-base], memory[r.start-base:r.end-base]) {
					t.Fatalf("%s: %d runs: the destination has something else in %#x-%#x", name, len(runs), r.start-base, r.end-base)
				}
			}
			// Some are too few in their chunk, and some marks have lost their places.
			if c.most > 0 && sent > (c.most+c.most/20+3*fewPages/pageSize)*pageSize {
				t.Errorf("%s: %d runs: %d pages were sent, %d are enough", name, len(runs), sent/pageSize, c.most)
			}
			if c.most == 0 && len(repeats) > 0 {
				t.Errorf("%s: %d repeats", name, len(repeats))
			}
		}
		// An older destination, and memory that is not private: every page is sent.
		for who, s := range map[string]*Subsystem{"older": New(target.Env{Source: &target.Source{}, Workers: 2}), "a file's": knowing(t)} {
			blank := pageSet(whole)
			if who == "a file's" {
				blank = nil
			}
			copied, _, _, repeats := copyBy(t, s, memory, whole, blank)
			if !bytes.Equal(copied, memory) || len(repeats) > 0 {
				t.Errorf("%s: %s: %d repeats", name, who, len(repeats))
			}
		}
	}
}

// TestFinderGivesUp: where pages never repeat, or only seem to, looking ends or
// becomes rare.
func TestFinderGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		f    *finder
		want uint64 // of 160 chunks
	}{
		"new":      {&finder{}, 160},
		"worth it": {&finder{looked: sureAfter + 1, found: sureAfter}, 160},
		"rare":     {&finder{looked: sureAfter + 1, found: 1}, 160 / rareLooks},
		"mistaken": {&finder{looked: 1000, mistaken: tooOften + 1}, 0},
	} {
		n := uint64(0)
		for range 160 {
			if c.f.wants() {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d chunks are looked at, want %d", name, n, c.want)
		}
	}
}

// TestDoubtful: pages whose origin was written or has gone since.
func TestDoubtful(t *testing.T) {
	const p = pageSize
	list := []repeat{
		{run{0x100 * p, 0x104 * p}, 0x10 * p},
		{run{0x200 * p, 0x201 * p}, 0x12 * p}, // the same origin
		{run{0x300 * p, 0x302 * p}, 0x20 * p}, // half of it has gone
		{run{0x400 * p, 0x401 * p}, 0x30 * p}, // nothing of it was written
	}
	seen := &pages{present: pageSet{{0x10 * p, 0x21 * p}, {0x30 * p, 0x31 * p}}, dirty: pageSet{{0x12 * p, 0x13 * p}, {0x400 * p, 0x401 * p}}}
	want := pageSet{{0x102 * p, 0x103 * p}, {0x200 * p, 0x201 * p}, {0x301 * p, 0x302 * p}}
	if got := doubtful(list, seen); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	a := &ahead{have: pageSet{{0x100 * p, 0x500 * p}}, repeats: list}
	a.settle(seen)
	if got := a.have.intersect(want); len(got) > 0 || a.repeats != nil {
		t.Errorf("the destination is said to have %x", got)
	}
}

// TestHostileRepeats: lists of repeated pages that a forged stream may hold.
func TestHostileRepeats(t *testing.T) {
	const at, from = 0x10000, 0x20000
	for name, b := range map[string][]byte{
		"half an entry":        words(at, pageSize),
		"odd bytes":            words(at, pageSize, from)[:23],
		"no page":              words(at+1, pageSize, from),
		"no origin":            words(at, pageSize, from+1),
		"empty":                words(at, 0, from),
		"no whole page":        words(at, 100, from),
		"kernel":               words(1<<63, pageSize, from),
		"origin in the kernel": words(at, pageSize, 1<<63),
		"wraps":                words(at, 1<<63, from),
		"origin wraps":         words(at, 2*pageSize, userEnd-pageSize),
		"overlap":              words(at, 2*pageSize, from, at+pageSize, pageSize, from),
		"descends":             words(at+pageSize, pageSize, from, at, pageSize, from),
		"itself":               words(at, pageSize, at),
		"in a chain":           words(at, pageSize, from, from, pageSize, from+pageSize),
		"in a circle":          words(at, pageSize, from, from, pageSize, at),
		"far too many":         make([]byte, 24*(maxRepeated+1)),
	} {
		if list, err := decodeRepeats(b); err == nil {
			t.Errorf("%s: taken for %v", name, list)
		}
	}
	list := []repeat{{run{at, at + 2*pageSize}, from}, {run{at + 3*pageSize, at + 4*pageSize}, from}}
	if got, err := decodeRepeats(encodeRepeats(list)); err != nil || !slices.Equal(got, list) {
		t.Errorf("%v, %v", got, err)
	}
	// Long ones come in steps of bounded size.
	var records []int
	long := []repeat{}
	for i := range uint64(3 * stepBytes / pageSize) {
		long = append(long, repeat{run{1<<40 + i*pageSize, 1<<40 + (i+1)*pageSize}, 1<<41 + i*pageSize})
	}
	err := pushRepeated(t.Context(), 1, long, record.SinkFunc(func(_ context.Context, r *record.Record) error {
		list, err := decodeRepeats(r.Payload)
		n := uint64(0)
		for _, x := range list {
			n += x.at.bytes()
		}
		if n > stepBytes {
			t.Errorf("%d bytes in one step", n)
		}
		records = append(records, len(list))
		return err
	}))
	if err != nil || !slices.Equal(records, []int{stepBytes / chunkBytes, stepBytes / chunkBytes, stepBytes / chunkBytes}) {
		t.Errorf("%v, %v", records, err)
	}
	mapped := func() *layout {
		ms := []*state.Mapping{{Start: at, Length: 4 * pageSize, Protection: unix.PROT_READ, Backing: state.Backing_BACKING_ANONYMOUS}}
		return &layout{space: &state.AddressSpace{Mappings: uint32(len(ms))}, mappings: ms, mapped: true}
	}
	s := New(target.Env{Frame: &target.Frame{}})
	for name, c := range map[string]struct {
		list  []byte
		spoil func(*layout)
	}{
		"target outside":      {words(at+4*pageSize, pageSize, at), nil},
		"origin outside":      {words(at, pageSize, at+4*pageSize), nil},
		"origin half outside": {words(at, 2*pageSize, at+3*pageSize), nil},
		"before the mappings": {words(at, pageSize, at+pageSize), func(l *layout) { l.mapped = false }},
		"mappings are coming": {words(at, pageSize, at+pageSize), func(l *layout) { l.space.Mappings++ }},
	} {
		l := mapped()
		if c.spoil != nil {
			c.spoil(l)
		}
		in := &record.Record{Header: record.Header{Subsystem: Name, Process: 1, Kind: KindRepeated, Entity: at}, Payload: c.list}
		if _, err := s.receiveRepeated(t.Context(), nil, l, in); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRepeatsAreForMoves: a destination that nobody moves to, or a source that is
// asked something else, says so.
func TestRepeatsAreForMoves(t *testing.T) {
	if err := New(target.Env{Frame: &target.Frame{}}).Prepare(t.Context()); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]*Subsystem{"no source": New(target.Env{Frame: &target.Frame{}}), "source": New(target.Env{Source: &target.Source{}})} {
		if _, err := s.Command(t.Context(), record.Command{To: Name, Verb: "dance"}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// BenchmarkCopier reads pages of its own and sends them nowhere, with and without a
// look for repeats.
func BenchmarkCopier(b *testing.B) {
	const pages = 64 << 20 / pageSize
	for name, of := range map[string]func(int) uint64{
		"different": func(page int) uint64 { return uint64(page) + 1 }, "the same four times": func(page int) uint64 { return uint64(page/4) + 1 },
	} {
		memory := mapPages(b, pages)
		contents(memory, of, false)
		whole := pageSet{{addressOf(memory), addressOf(memory) + uint64(len(memory))}}
		for _, looks := range []bool{false, true} {
			b.Run(map[bool]string{false: "all/", true: "once/"}[looks]+name, func(b *testing.B) {
				s := New(target.Env{Source: &target.Source{}, Workers: 1})
				s.repeats.Store(looks)
				b.SetBytes(int64(len(memory)))
				for b.Loop() {
					c := &copier{
						s: s, p: &target.Process{Pid: unix.Getpid(), ID: 1}, blank: whole, finder: s.newFinder(whole.bytes()),
						out: record.SinkFunc(func(context.Context, *record.Record) error { return nil }),
					}
					if err := c.send(b.Context(), plan(whole)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
