// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"context"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// listed has a process, which is this one, list memory of 8 MB: all of it is there but
// for a page of the second page table.
func listed(t *testing.T) (m []byte, at run, p *target.Process, a *ahead) {
	t.Helper()
	m, at = region(t, 8<<20)
	for i := range m {
		if i/pageSize != hugeSize/pageSize+7 {
			m[i] = byte(i/pageSize) | 1
		}
	}
	smaps, err := procfs.Host().Process(os.Getpid()).Smaps()
	if err != nil {
		t.Fatal(err)
	}
	smaps = slices.DeleteFunc(smaps, func(s procfs.SmapsMapping) bool { return s.Start > at.start || s.End < at.end })
	if len(smaps) != 1 {
		t.Fatalf("%d mappings hold %#x-%#x", len(smaps), at.start, at.end)
	}
	p = &target.Process{Pid: os.Getpid(), Proc: procfs.Host().Process(os.Getpid())}
	a = &ahead{smaps: smaps}
	if err := (&round{p: p, a: a}).list(); err != nil {
		t.Fatal(err)
	}
	a.listed = a.listed.intersect(pageSet{at}) // the region's mapping is larger, and may have a neighbour
	if want := (pageSet{{at.start, at.start + hugeSize}, {at.start + 2*hugeSize, at.end}}); !slices.Equal(a.listed, want) {
		t.Fatalf("%v are listed, want %v", a.listed, want)
	}
	return m, at, p, a
}

func drop(t *testing.T, b []byte, advice int) {
	t.Helper()
	if err := unix.Madvise(b, advice); err != nil {
		t.Fatal(err)
	}
}

// TestListed: pages that were listed count as there, also if they have gone since;
// all others are looked at, and so is what was listed where nothing may stay behind.
func TestListed(t *testing.T) {
	m, at, p, a := listed(t)
	drop(t, m[:pageSize], unix.MADV_DONTNEED)
	drop(t, m[hugeSize:hugeSize+pageSize], unix.MADV_DONTNEED)
	m[hugeSize+7*pageSize] = 1 // is there now
	second := run{at.start + hugeSize, at.start + hugeSize + pageSize}
	seen, err := a.look(p, pageSet{at}, false, pageSet{at})
	if err != nil {
		t.Fatal(err)
	}
	if want := (pageSet{at}).subtract(pageSet{second}); !slices.Equal(seen.present, want) || !slices.Equal(seen.dirty, want) {
		t.Errorf("present %v, dirty %v, want %v", seen.present, seen.dirty, want)
	}
	if !slices.Equal(seen.supposed, a.listed) {
		t.Errorf("%v are supposed, want %v", seen.supposed, a.listed)
	}

	// The last page table may not stay behind.
	may := pageSet{{at.start, at.end - hugeSize}}
	drop(t, m[len(m)-pageSize:], unix.MADV_DONTNEED)
	if seen, err = a.look(p, pageSet{at}, false, may); err != nil {
		t.Fatal(err)
	}
	want := (pageSet{at}).subtract(pageSet{second, {at.end - pageSize, at.end}})
	if !slices.Equal(seen.present, want) || !slices.Equal(seen.supposed, a.listed.intersect(may)) {
		t.Errorf("present %v, supposed %v, want %v", seen.present, seen.supposed, want)
	}
	if seen, err = a.look(p, pageSet{at}, false, nil); err != nil {
		t.Fatal(err)
	}
	if want = want.subtract(pageSet{{at.start, at.start + pageSize}}); !slices.Equal(seen.present, want) || seen.supposed != nil {
		t.Errorf("present %v, supposed %v, want %v", seen.present, seen.supposed, want)
	}
}

// heap keeps the pages of what is pushed.
type heap map[uint64][]byte

func (h heap) Push(_ context.Context, r *record.Record) error {
	runs, data := []run{{r.Entity, r.Entity + uint64(len(r.Payload))}}, r.Payload
	switch r.Kind {
	case KindScattered:
		var err error
		if runs, data, err = decodeIndex(r.Payload); err != nil {
			return err
		}
	case KindFilled:
		return nil
	}
	for _, x := range runs {
		for ; x.start < x.end; x.start += pageSize {
			h[x.start] = bytes.Clone(data[:pageSize])
			data = data[pageSize:]
		}
	}
	return nil
}

// TestLeftAbsent: of what was left behind, pages that are not there any more, or
// have become guard pages, which nobody can read, are zeroes, whether they are pushed or pulled.
func TestLeftAbsent(t *testing.T) {
	m, at, p, a := listed(t)
	want := bytes.Clone(m)
	for i, advice := range map[int]int{0: unix.MADV_DONTNEED, 5: madvGuardInstall, 1500: unix.MADV_DONTNEED} {
		page := m[i*pageSize:][:pageSize]
		if err := unix.Madvise(page, advice); err != nil && advice == madvGuardInstall {
			t.Logf("no guard pages here (Linux 6.13): %v", err)
			drop(t, page, unix.MADV_DONTNEED)
		} else if err != nil {
			t.Fatal(err)
		}
		clear(want[i*pageSize:][:pageSize])
	}
	s := New(target.Env{Source: &target.Source{}, Workers: 1})
	s.lefts[1] = &left{p: p, pages: a.listed, supposed: a.listed, chunks: ascending(a.listed)}
	pulled := heap{}
	for _, x := range a.listed {
		for ; x.start < x.end; x.start += maxPull {
			r, release, err := s.Pull(t.Context(), record.Pull{Subsystem: Name, Process: 1, Entity: x.start, Length: maxPull})
			if err != nil {
				t.Fatal(err)
			}
			if err := pulled.Push(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			release()
		}
	}
	pushed := heap{}
	for done := false; !done; {
		pr, err := s.exportLeft(t.Context(), 1, pushed)
		if err != nil {
			t.Fatal(err)
		}
		done = pr.Done
	}
	for how, got := range map[string]heap{"pulled": pulled, "pushed": pushed} {
		if n := uint64(len(got)) * pageSize; n != a.listed.bytes() {
			t.Errorf("%d bytes were %s, want %d", n, how, a.listed.bytes())
		}
		for address, page := range got {
			if !bytes.Equal(page, want[address-at.start:][:pageSize]) {
				t.Errorf("page %d was not %s as it is", (address-at.start)/pageSize, how)
			}
		}
	}
}

// TestSupply: missing pages are filled with what they hold; those that hold nothing
// take no memory.
func TestSupply(t *testing.T) {
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly, 0, 0)
	if e != 0 {
		t.Skipf("userfaultfd: %v", e)
	}
	f := os.NewFile(fd, "userfaultfd")
	defer f.Close()
	if err := ioctl(int(fd), uffdioAPI, ptr(&uffdioAPIArg{api: uffdAPI})); err != nil {
		t.Fatal(err)
	}
	m, at := region(t, 1<<20)
	arg := uffdioRegisterArg{start: at.start, length: at.bytes(), mode: uffdioRegisterModeMissed}
	if err := control(f, uffdioRegister, ptr(&arg)); err != nil {
		t.Fatal(err)
	}
	half := len(m) / 2
	data := make([]byte, len(m))
	data[len(data)-1] = 1
	sp := &lazySpace{f: f}
	for _, x := range []int{0, half} {
		if n, err := sp.supply(at.start+uint64(x), data[x:x+half]); err != nil || n != uint64(half) {
			t.Fatalf("%d bytes were filled, want %d: %v", n, half, err)
		}
	}
	pm, err := openPagemap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	var there pageSet
	if err := pm.scan(at.start, at.end, content, func(start, end uint64) { there = there.put(run{start, end}) }); err != nil {
		t.Fatal(err)
	}
	if want := (pageSet{{at.start + uint64(half), at.end}}); !slices.Equal(there, want) {
		t.Errorf("%v take memory, want %v", there, want)
	}
	if !bytes.Equal(m, data) {
		t.Error("the pages do not hold what they were filled with")
	}
}
