// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of include/uapi/linux/ptrace.h that x/sys lacks.
const (
	ptraceSeccompGetFilter   = 0x420c
	ptraceSeccompGetMetadata = 0x420d
)

// SockFilterSize is the size of an instruction of a filter in bytes: struct
// sock_filter of include/uapi/linux/filter.h.
const SockFilterSize = 8

// MaxFilter is the most instructions that a filter can have, BPF_MAXINSNS of
// include/uapi/linux/bpf_common.h.
const MaxFilter = 4096

// Filter is a filter of seccomp(2).
type Filter struct {
	// Code is an array of struct sock_filter.
	Code []byte
	// Log: SECCOMP_FILTER_FLAG_LOG.
	Log bool
}

// Filters returns the thread's seccomp filters but for the oldest skip ones,
// the oldest first (get_nth_filter of kernel/seccomp.c counts so). It needs
// CAP_SYS_ADMIN and an engine that is under no filter itself.
func (th *Thread) Filters(skip int) (out []Filter, err error) {
	err = th.do("seccomp filters", func() error {
		for n := skip; ; n++ {
			f, err := ptraceFilter(th.Tid, n)
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("filter %d: %w", n, err)
			}
			out = append(out, f)
		}
	})
	return out, err
}

// ptraceFilterSize is how many instructions the nth filter has.
func ptraceFilterSize(tid, n int) (int, error) {
	size, _, e := unix.RawSyscall6(unix.SYS_PTRACE, ptraceSeccompGetFilter, uintptr(tid), uintptr(n), 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(size), nil
}

// ptraceFilter reads the nth filter.
func ptraceFilter(tid, n int) (Filter, error) {
	size, err := ptraceFilterSize(tid, n)
	if err != nil {
		return Filter{}, err
	}
	if size == 0 || size > MaxFilter {
		return Filter{}, fmt.Errorf("it has %d instructions: %w", size, unix.EMSGSIZE)
	}
	f := Filter{Code: make([]byte, size*SockFilterSize)}
	if err := ptracePtr(ptraceSeccompGetFilter, tid, uintptr(n), unsafe.Pointer(&f.Code[0])); err != nil {
		return f, err
	}
	about := struct{ offset, flags uint64 }{offset: uint64(n)} // struct seccomp_metadata
	if err := ptracePtr(ptraceSeccompGetMetadata, tid, unsafe.Sizeof(about), unsafe.Pointer(&about)); err != nil {
		return f, err
	}
	if more := about.flags &^ unix.SECCOMP_FILTER_FLAG_LOG; more != 0 {
		return f, fmt.Errorf("it has flags %#x, which are not known: %w", more, unix.ENOTSUP)
	}
	f.Log = about.flags&unix.SECCOMP_FILTER_FLAG_LOG != 0
	return f, nil
}
