// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nothing is a packet filter that takes nothing. The first instruction has no
// effect: by it Undo knows the filter from an application's.
var nothing = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_IMM, K: 0x6d696721},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// Deafen makes a connection drop all segments that arrive, without an
// acknowledgment: what it has received does not change any more, and the other
// end sends again what it sends meanwhile. The socket must have no filter of its
// own.
func Deafen(fd int) error {
	prog := unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("setsockopt(SO_ATTACH_FILTER): %w", err)
	}
	return nil
}

// Hear ends Deafen.
func Hear(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		return fmt.Errorf("setsockopt(SO_DETACH_FILTER): %w", err)
	}
	return nil
}

// deaf tells whether Deafen was called.
func deaf(fd int) bool {
	var got [8]unix.SockFilter
	n := uint32(len(got)) // instructions
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(unsafe.Pointer(&got[0])), uintptr(unsafe.Pointer(&n)), 0)
	return e == 0 && int(n) <= len(got) && slices.Equal(got[:n], nothing)
}
