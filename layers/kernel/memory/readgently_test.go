// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestReadGently reads more runs than one call takes, with one among them that
// process_vm_readv(2) refuses, and gets each where it belongs.
func TestReadGently(t *testing.T) {
	const runs = maxVectors + 100
	area, err := unix.Mmap(-1, 0, 2*runs*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(area)
	base := uint64(uintptr(unsafe.Pointer(&area[0])))
	var list []run
	var want []byte
	for i := range runs {
		page := area[2*i*pageSize:][:pageSize]
		page[0], page[1], page[pageSize-1] = byte(i), byte(i>>8), 1
		want = append(want, page...)
		start := base + uint64(2*i*pageSize)
		list = append(list, run{start, start + pageSize})
	}
	hidden := area[2*7*pageSize:][:pageSize]
	if err := unix.Mprotect(hidden, unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	got := make([]byte, len(want))
	if err := readRuns(os.Getpid(), mem, true, list, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("some page is not where it belongs")
	}
}
