// SPDX-License-Identifier: Apache-2.0

package target

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// pool makes a directory like the kernel's of one size of huge pages.
func pool(t *testing.T, dir, name string, free, reserved, overcommit, surplus string) {
	t.Helper()
	at := filepath.Join(dir, name)
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"free_hugepages": free, "resv_hugepages": reserved, "nr_overcommit_hugepages": overcommit, "surplus_hugepages": surplus,
	} {
		if err := os.WriteFile(filepath.Join(at, file), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHugePools(t *testing.T) {
	dir := t.TempDir()
	pool(t, dir, "hugepages-2048kB", "10", "3", "5", "1")
	pool(t, dir, "hugepages-1048576kB", "2", "3", "0", "0")
	pool(t, dir, "hugepages-3kB", "1", "0", "0", "0")
	pool(t, dir, "hugepages-64kB", "many", "0", "0", "0")
	sizes, err := hugeSizes(dir)
	slices.Sort(sizes)
	if err != nil || !slices.Equal(sizes, []uint64{64 << 10, 2 << 20, 1 << 30}) {
		t.Errorf("%v, %v", sizes, err)
	}
	if sizes, err := hugeSizes(filepath.Join(dir, "none")); err != nil || len(sizes) > 0 {
		t.Errorf("a kernel without huge pages: %v, %v", sizes, err)
	}
	for size, want := range map[uint64]uint64{2 << 20: 11, 1 << 30: 0} {
		if n, err := hugeFree(dir, size); err != nil || n != want {
			t.Errorf("%s: %d are free, %v; want %d", HugeName(size), n, err, want)
		}
	}
	for _, size := range []uint64{64 << 10, 16 << 20} {
		if n, err := hugeFree(dir, size); err == nil {
			t.Errorf("%s: %d are free", HugeName(size), n)
		}
	}
}

func TestHugeSizes(t *testing.T) {
	for size, valid := range map[uint64]bool{0: false, 4096: false, 64 << 10: true, 2 << 20: true, 3 << 20: false, 1 << 30: true, 32 << 30: false, 1 << 63: false} {
		if ValidHugeSize(size) != valid {
			t.Errorf("%d bytes: valid is %v", size, !valid)
		}
	}
	if HugeFlag(2<<20) != unix.MAP_HUGE_2MB || HugeFlag(1<<30) != unix.MAP_HUGE_1GB {
		t.Errorf("flags %#x and %#x", HugeFlag(2<<20), HugeFlag(1<<30))
	}
	for size, want := range map[uint64]string{64 << 10: "64 kB", 2 << 20: "2 MB", 1 << 30: "1 GB"} {
		if got := HugeName(size); got != want {
			t.Errorf("%d bytes are %q", size, got)
		}
	}
}

// A memfd of huge pages is known by its device, and one of small pages is not.
func TestHugeMemfdIsKnown(t *testing.T) {
	sizes, err := HugeSizes()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range append(sizes, 0) {
		flags := 0
		if size > 0 {
			flags = unix.MFD_HUGETLB | HugeFlag(size)
		}
		fd, err := unix.MemfdCreate("x", flags)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		o := &state.FileObject{Path: "x", Memfd: true}
		if err := SetHuge(o, &st); err != nil || o.HugePageSize != size || o.Memfd != (size == 0) || !IsMemfd(o) {
			t.Errorf("a memfd of pages of %d bytes: %v, %v", size, o, err)
		}
		if size > 0 {
			if err := CheckHugeSize(size); err != nil {
				t.Error(err)
			}
		}
	}
	if err := CheckHugeSize(16 << 30); err == nil {
		t.Error("this kernel is said to have huge pages of 16 GB")
	}
}

func TestIsZero(t *testing.T) {
	for _, n := range []int{0, 1, 2, 4095, 4096} {
		b := make([]byte, n)
		if !IsZero(b) {
			t.Errorf("%d zeroes", n)
		}
		for _, at := range []int{0, n / 2, n - 1} {
			if n == 0 {
				continue
			}
			b[at] = 1
			if IsZero(b) {
				t.Errorf("%d bytes with a 1 at %d", n, at)
			}
			b[at] = 0
		}
	}
	if b := []byte{1, 1, 1}; IsZero(b) {
		t.Error("ones")
	}
}
