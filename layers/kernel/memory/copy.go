// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVectors is IOV_MAX: the ranges that one process_vm_readv(2) takes.
const maxVectors = 1024

// errPartial: the kernel copied less than it was asked to.
var errPartial = errors.New("partial copy")

// readRuns copies runs of a process's memory into dst, one after another.
// process_vm_readv is the fast way; it cannot read what the process itself may
// not read (PROT_NONE), for which /proc/PID/mem is asked, which can.
//
// The fast way pins the pages, for which the kernel first gives the process a
// copy of its own of each page that it shares copy-on-write (mm/gup.c,
// gup_must_unshare): a container of several processes would grow by being looked
// at. gently reads such pages by /proc/PID/mem, which pins nothing.
func readRuns(pid int, mem *os.File, gently bool, runs []run, dst []byte) error {
	if !gently {
		return readFast(pid, mem, runs, dst)
	}
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return fmt.Errorf("open the page map: %w", err)
	}
	defer pages.Close()
	return readGently(pid, mem, pages, runs, dst)
}

// readGently reads what others may share by /proc/PID/mem, and all the rest by one
// call for up to maxVectors pieces: each call finds the process and asks again
// whether it may be read.
func readGently(pid int, mem, pages *os.File, runs []run, dst []byte) error {
	var fast vectors
	each := func(r run, shared bool) error {
		b := dst[:r.bytes()]
		dst = dst[r.bytes():]
		if shared {
			return readSlow(mem, []run{r}, b)
		}
		if len(fast.runs) == maxVectors {
			if err := fast.read(pid, mem); err != nil {
				return err
			}
		}
		fast.add(r, b)
		return nil
	}
	err := eachSpan(runs, func(span run, parts []run) error {
		list, err := entries(pages, span)
		if err != nil {
			return err
		}
		for _, r := range parts {
			if err := eachKind(list[(r.start-span.start)/pageSize:], r, each); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return fast.read(pid, mem)
}

// vectors are runs that are to be read, each into memory of its own.
type vectors struct {
	runs   []run
	into   [][]byte
	local  []unix.Iovec
	remote []unix.RemoteIovec
	total  uint64
}

func (v *vectors) add(r run, b []byte) {
	v.runs, v.into = append(v.runs, r), append(v.into, b)
	v.local = append(v.local, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
	v.remote = append(v.remote, unix.RemoteIovec{Base: uintptr(r.start), Len: len(b)})
	v.total += uint64(len(b))
}

// read reads them and forgets them. What process_vm_readv(2) refuses is read by
// /proc/PID/mem, run by run, as readFast does.
func (v *vectors) read(pid int, mem *os.File) error {
	if len(v.runs) == 0 {
		return nil
	}
	got, err := unix.ProcessVMReadv(pid, v.local, v.remote, 0)
	whole := err == nil && uint64(got) == v.total
	if err != nil && !errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("copy %d ranges at %#x of pid %d: %w", len(v.runs), v.runs[0].start, pid, err)
	}
	for i := 0; !whole && i < len(v.runs); i++ {
		if err := readSlow(mem, v.runs[i:i+1], v.into[i]); err != nil {
			return err
		}
	}
	*v = vectors{runs: v.runs[:0], into: v.into[:0], local: v.local[:0], remote: v.remote[:0]}
	return nil
}

// eachKind splits a run, whose entries list begins with, into pieces whose pages are
// all shared with other processes, or all not.
func eachKind(list []uint64, r run, fn func(r run, shared bool) error) error {
	shared := func(e uint64) bool { return e&entryPresent != 0 && e&(entryFile|entryExclusive) == 0 }
	for n := int(r.bytes() / pageSize); n > 0; {
		i, kind := 1, shared(list[0])
		for i < n && shared(list[i]) == kind {
			i++
		}
		part := run{r.start, r.start + uint64(i)*pageSize}
		if err := fn(part, kind); err != nil {
			return err
		}
		list, r.start, n = list[i:], part.end, n-i
	}
	return nil
}

func readFast(pid int, mem *os.File, runs []run, dst []byte) error {
	err := copyVectors(unix.SYS_PROCESS_VM_READV, pid, runs, dst)
	if !errors.Is(err, unix.EFAULT) && !errors.Is(err, errPartial) {
		return err
	}
	return readSlow(mem, runs, dst)
}

func readSlow(mem *os.File, runs []run, dst []byte) error {
	for _, r := range runs {
		n := r.bytes()
		if _, err := io.ReadFull(io.NewSectionReader(mem, int64(r.start), int64(n)), dst[:n]); err != nil {
			return fmt.Errorf("read %#x-%#x: %w", r.start, r.end, err)
		}
		dst = dst[n:]
	}
	return nil
}

// writeRuns is the way back.
func writeRuns(pid int, runs []run, src []byte) error {
	err := copyVectors(unix.SYS_PROCESS_VM_WRITEV, pid, runs, src)
	if !errors.Is(err, unix.EFAULT) && !errors.Is(err, errPartial) {
		return err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open its memory: %w", err)
	}
	defer mem.Close()
	for _, r := range runs {
		n := r.bytes()
		if _, err := mem.WriteAt(src[:n], int64(r.start)); err != nil {
			return fmt.Errorf("write %#x-%#x: %w", r.start, r.end, err)
		}
		src = src[n:]
	}
	return nil
}

// copyVectors makes one process_vm_readv or _writev call for up to IOV_MAX
// runs between local, contiguous memory and the process.
func copyVectors(nr uintptr, pid int, runs []run, local []byte) error {
	// On the heap: a goroutine's stack would first have to grow for them.
	remote := make([]unix.RemoteIovec, min(len(runs), maxVectors))
	for len(runs) > 0 {
		n := min(len(runs), maxVectors)
		total := 0
		for i, r := range runs[:n] {
			remote[i] = unix.RemoteIovec{Base: uintptr(r.start), Len: int(r.bytes())}
			total += int(r.bytes())
		}
		liov := unix.Iovec{Base: &local[0], Len: uint64(total)}
		got, _, e := unix.Syscall6(nr, uintptr(pid), uintptr(unsafe.Pointer(&liov)), 1, uintptr(unsafe.Pointer(&remote[0])), uintptr(n), 0)
		if e != 0 {
			return fmt.Errorf("copy %d ranges at %#x of pid %d: %w", n, runs[0].start, pid, e)
		}
		if int(got) != total {
			return fmt.Errorf("%w: %d of %d bytes at %#x of pid %d", errPartial, got, total, runs[0].start, pid)
		}
		runs, local = runs[n:], local[total:]
	}
	return nil
}
