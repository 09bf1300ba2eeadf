// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracker tracks memory of this process as an export tracks that of another.
func tracker(t testing.TB) *os.File {
	t.Helper()
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly, 0, 0)
	if e != 0 {
		t.Skipf("userfaultfd: %v", e)
	}
	f := os.NewFile(fd, "userfaultfd")
	if err := enableTracking(f); err != nil {
		t.Skip(err)
	}
	return f
}

// region maps n bytes, aligned to a page table.
func region(t testing.TB, n int) ([]byte, run) {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n+hugeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	at := uint64(uintptr(unsafe.Pointer(&b[0])))
	skip := -at & (hugeSize - 1)
	return b[skip:][:n], run{at + skip, at + skip + uint64(n)}
}

// TestLookAgain compares the short way with the long one, after writes, dropped
// pages and dropped page tables.
func TestLookAgain(t *testing.T) {
	const size = 64 << 20
	f := tracker(t)
	defer f.Close()
	b, r := region(t, size)
	if err := register(f, r); err != nil {
		t.Fatal(err)
	}
	pm, err := openPagemap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	rnd := rand.New(rand.NewPCG(3, 4))
	for turn := range 300 {
		before, err := look(pm, pageSet{r}, scanProtect)
		if err != nil {
			t.Fatal(err)
		}
		for range rnd.IntN(30) {
			at, n := rnd.IntN(size/pageSize)*pageSize, (rnd.IntN(8)+1)*pageSize
			switch rnd.IntN(4) {
			case 0:
				_ = unix.Madvise(b[at:min(at+n, size)], unix.MADV_DONTNEED)
			case 1:
				at &^= hugeSize - 1
				_ = unix.Madvise(b[at:at+hugeSize], unix.MADV_DONTNEED)
			case 2:
				_ = b[at] // a page of zeros
			default:
				for i := at; i < min(at+n, size); i += pageSize {
					b[i]++
				}
			}
		}
		want, err := look(pm, pageSet{r}, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := lookAgain(pm, pageSet{r}, before.present)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.present, want.present) || !slices.Equal(got.dirty, want.dirty) {
			t.Fatalf("turn %d: present %v dirty %v\nwant %v %v", turn, got.present, got.dirty, want.present, want.dirty)
		}
	}
}

// BenchmarkLook: 1 GB that nobody has written since, by either way.
func BenchmarkLook(b *testing.B) {
	const size = 1 << 30
	f := tracker(b)
	defer f.Close()
	m, r := region(b, size)
	for i := 0; i < size; i += pageSize {
		m[i] = 1
	}
	if err := register(f, r); err != nil {
		b.Fatal(err)
	}
	pm, err := openPagemap(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	defer pm.Close()
	seen, err := look(pm, pageSet{r}, scanProtect)
	if err != nil {
		b.Fatal(err)
	}
	for name, fn := range map[string]func() (pages, error){
		"long":  func() (pages, error) { return look(pm, pageSet{r}, 0) },
		"short": func() (pages, error) { return lookAgain(pm, pageSet{r}, seen.present) },
	} {
		b.Run(name, func(b *testing.B) {
			least := time.Hour
			for range b.N {
				begun := time.Now()
				if _, err := fn(); err != nil {
					b.Fatal(err)
				}
				least = min(least, time.Since(begun))
			}
			b.ReportMetric(float64(least.Microseconds()), "min-us")
		})
	}
}

// remapTo moves pages of this process.
func remapTo(t testing.TB, from run, to uint64) {
	t.Helper()
	at, _, e := unix.Syscall6(unix.SYS_MREMAP, uintptr(from.start), uintptr(from.bytes()), uintptr(from.bytes()), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(to), 0)
	if e != 0 || uint64(at) != to {
		t.Fatalf("mremap of %#x-%#x to %#x: %v", from.start, from.end, to, e)
	}
}

// TestLostTracking: a tracked piece that goes away and comes back between its
// neighbours takes their tracking away, but not their marks. What is written then
// has to be seen, at once and after the tracking was begun again.
func TestLostTracking(t *testing.T) {
	const size = 4 << 20
	f := tracker(t)
	defer f.Close()
	b, r := region(t, size)
	_, away := region(t, size)
	for i := range b {
		b[i] = 1
	}
	pm, err := openPagemap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	p := &round{a: &ahead{track: f}}
	track := func(x run) {
		t.Helper()
		if err := register(f, x); err != nil {
			t.Fatal(err)
		}
	}
	track(r)
	p.a.fresh = pageSet{r}
	if _, err := p.protect(pm, pageSet{r}); err != nil {
		t.Fatal(err)
	}

	middle := run{r.start + size/4, r.end - size/4}
	remapTo(t, middle, away.start)
	track(run{away.start, away.start + middle.bytes()})
	remapTo(t, run{away.start, away.start + middle.bytes()}, middle.start)
	lost, err := pm.untracked(pageSet{r})
	if err != nil {
		t.Fatal(err)
	}
	if len(lost) == 0 {
		t.Skip("this kernel keeps the tracking")
	}
	b[0], b[size-1] = 2, 2
	written := pageSet{{r.start, r.start + pageSize}, {r.end - pageSize, r.end}}
	seen, err := lookAgain(pm, pageSet{r}, pageSet{r})
	if err != nil {
		t.Fatal(err)
	}
	if missed := written.subtract(seen.dirty); len(missed) > 0 {
		t.Errorf("%v were written and not seen", missed)
	}

	track(r)
	p.a.fresh = lost
	if seen, err = p.protect(pm, pageSet{r}); err != nil {
		t.Fatal(err)
	}
	if missed := written.subtract(seen.dirty); len(missed) > 0 {
		t.Errorf("%v were written and not seen when they were tracked again", missed)
	}
	b[0], b[size-1] = 3, 3
	if seen, err = p.protect(pm, pageSet{r}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen.dirty, written) {
		t.Errorf("%v were seen to be written, not %v", seen.dirty, written)
	}
}
