// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"
)

// Of include/uapi/linux/userfaultfd.h; see also fill.go.
const (
	uffdFeatureWPUnpopulated = 1 << 13 // Linux 6.4
	uffdFeatureWPAsync       = 1 << 15 // Linux 6.7

	uffdioRegisterModeWP = 2
	uffdioWriteProtect   = 0xc018aa06 // _IOWR(UFFDIO, 0x06, struct uffdio_writeprotect)
)

// enableTracking makes a new userfaultfd one that write-protects without
// messages: a write to a protected page lets go of the page's mark and nothing
// else (WP_ASYNC). WP_UNPOPULATED is what private memory needs for it.
func enableTracking(f *os.File) error {
	arg := uffdioAPIArg{api: uffdAPI, features: uffdFeatureWPAsync | uffdFeatureWPUnpopulated}
	if err := ioctl(int(f.Fd()), uffdioAPI, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("track writes by userfaultfd (needs Linux 6.7): %w", err)
	}
	return nil
}

// register asks for the tracking of all mappings in r. Nothing happens to what
// is tracked by f already; what another userfaultfd has is an error (EBUSY).
func register(f *os.File, r run) error {
	arg := uffdioRegisterArg{start: r.start, length: r.bytes(), mode: uffdioRegisterModeWP}
	if err := ioctl(int(f.Fd()), uffdioRegister, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("track writes to %#x-%#x: %w", r.start, r.end, err)
	}
	return nil
}

// unprotect takes the marks from pages in r.
func unprotect(f *os.File, r run) error {
	arg := struct{ start, length, mode uint64 }{start: r.start, length: r.bytes()}
	if err := ioctl(int(f.Fd()), uffdioWriteProtect, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("take the marks of written pages from %#x-%#x: %w", r.start, r.end, err)
	}
	return nil
}

// control is an ioctl(2) on a descriptor that others read from.
func control(f *os.File, request uintptr, arg unsafe.Pointer) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := c.Control(func(fd uintptr) { failed = ioctl(int(fd), request, arg) }); err != nil {
		return err
	}
	return failed
}

func ptr[T any](v *T) unsafe.Pointer { return unsafe.Pointer(v) }

func leUint64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// copyIn fills missing pages from at on, and returns how many bytes it has
// filled, also if it ends early.
func copyIn(f *os.File, at uint64, data []byte) (uint64, error) {
	arg := uffdioCopyArg{dst: at, src: &data[0], len: uint64(len(data))}
	if err := control(f, uffdioCopy, unsafe.Pointer(&arg)); err != nil {
		return uint64(max(arg.copied, 0)), err
	}
	return arg.len, nil
}

// zeroIn is copyIn of zeroes: the pages are the kernel's own page of zeroes until they
// are written.
func zeroIn(f *os.File, at, length uint64) (uint64, error) {
	arg := struct {
		start, length, mode uint64
		zeroed              int64
	}{start: at, length: length}
	if err := control(f, uffdioZeropag, ptr(&arg)); err != nil {
		return uint64(max(arg.zeroed, 0)), err
	}
	return length, nil
}
