// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// copyOwn copies pages of the test's own memory by a copier and returns what a
// destination makes of the records, how many bytes of pages they have, and the
// pages that were dropped.
func copyOwn(t *testing.T, memory []byte, runs []run, blank pageSet) (copied []byte, sent int, dropped pageSet) {
	t.Helper()
	s := New(target.Env{Source: &target.Source{}, Workers: 2})
	copied, sent, dropped, _ = copyBy(t, s, memory, runs, blank)
	return copied, sent, dropped
}

// copyBy is copyOwn by a subsystem, and returns the pages that repeat others, too.
func copyBy(t *testing.T, s *Subsystem, memory []byte, runs []run, blank pageSet) (copied []byte, sent int, dropped pageSet, repeats []repeat) {
	t.Helper()
	base := uint64(uintptr(unsafe.Pointer(&memory[0])))
	copied = bytes.Repeat([]byte{0xee}, len(memory))
	var mu sync.Mutex
	sink := record.SinkFunc(func(ctx context.Context, r *record.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if err := r.Seal(); err != nil {
			return err
		}
		again := record.Record{Header: r.Header, Sum: r.Sum, Payload: r.Payload}
		if err := again.Verify(); err != nil { // of what is there, not of what was summed
			return err
		}
		if r.Kind == KindDropped {
			list, err := decodeRuns(r.Payload)
			for _, x := range list {
				clear(copied[x.start-base : x.end-base])
				dropped = dropped.put(x)
			}
			return err
		}
		if r.Kind == KindRepeated {
			list, err := decodeRepeats(r.Payload)
			for _, x := range list {
				copy(copied[x.at.start-base:x.at.end-base], copied[x.origin-base:])
			}
			repeats = append(repeats, list...)
			return err
		}
		list, data := []run{{r.Entity, r.Entity + uint64(len(r.Payload))}}, r.Payload
		if r.Kind == KindScattered {
			var err error
			if list, data, err = decodeIndex(r.Payload); err != nil {
				return err
			}
		}
		sent += len(data)
		for _, x := range list {
			data = data[copy(copied[x.start-base:x.end-base], data):]
		}
		return nil
	})
	var all pageSet
	for _, r := range runs {
		all = all.put(r)
	}
	c := &copier{s: s, p: &target.Process{Pid: os.Getpid(), ID: 1}, out: sink, blank: blank, finder: s.newFinder(all.bytes())}
	if err := c.send(t.Context(), plan(all)); err != nil {
		t.Fatal(err)
	}
	if got := s.bytes.Load(); got != all.bytes() {
		t.Errorf("%d bytes of %d were counted", got, all.bytes())
	}
	return copied, sent, dropped, repeats
}

// TestZeroesAreNotSent: whatever pages of whatever runs are zeroes, a destination
// gets the same bytes, and long stretches of them do not travel.
func TestZeroesAreNotSent(t *testing.T) {
	const size = 5<<20 + 3*pageSize
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	base := uint64(uintptr(unsafe.Pointer(&memory[0])))
	whole := []run{{base, base + size}}
	var gaps []run // every 20th page is not wanted
	for at := uint64(0); at < size; at += 20 * pageSize {
		gaps = append(gaps, run{base + at, base + min(size, at+19*pageSize)})
	}
	for name, zero := range map[string]func(page int) bool{
		"none":            func(int) bool { return false },
		"all":             func(int) bool { return true },
		"one":             func(page int) bool { return page == 7 },
		"every other":     func(page int) bool { return page%2 == 0 },
		"stretches":       func(page int) bool { return page/40%2 == 0 },
		"the first chunk": func(page int) bool { return page < 512 },
		"at random":       func(int) bool { return rand.IntN(3) == 0 },
		"the last":        func(page int) bool { return page >= size/pageSize-20 },
	} {
		for page := range size / pageSize {
			content := memory[page*pageSize:][:pageSize]
			clear(content)
			if !zero(page) {
				binary.LittleEndian.PutUint64(content[page%3/2*(pageSize-8):], rand.Uint64()|1) // some show it in their last word only
			}
		}
		for _, runs := range [][]run{whole, gaps} {
			copied, sent, dropped := copyOwn(t, memory, runs, pageSet(whole))
			for _, r := range runs {
				if !bytes.Equal(copied[r.start-base:r.end-base], memory[r.start-base:r.end-base]) {
					t.Fatalf("%s: %d runs: the destination has something else in %#x-%#x", name, len(runs), r.start-base, r.end-base)
				}
			}
			if name == "all" && sent != 0 || name == "stretches" && sent > size*2/3 {
				t.Errorf("%s: %d bytes were sent of %d", name, sent, size)
			}
			if (name == "none" || name == "one") && len(dropped) > 0 {
				t.Errorf("%s: %d runs were dropped", name, len(dropped))
			}
		}
		copied, _, dropped := copyOwn(t, memory, whole, nil)
		if !bytes.Equal(copied, memory) || len(dropped) > 0 {
			t.Errorf("%s: of a file's mapping %d runs were dropped", name, len(dropped))
		}
	}
}

func TestEachPiece(t *testing.T) {
	runs := []run{{0, pageSize}, {10 * pageSize, 10*pageSize + 3*pieceBytes}, {4 << 30, 4<<30 + pageSize}}
	var got []run
	if err := eachPiece(runs, func(part []run, n uint64) error {
		if n > pieceBytes {
			t.Errorf("a piece of %d bytes", n)
		}
		got = append(got, part...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var joined pageSet
	for _, r := range got {
		joined = joined.put(r)
	}
	if !slices.Equal(joined, pageSet(runs)) {
		t.Errorf("%v", joined)
	}
}
