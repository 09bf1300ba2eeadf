// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A marked socket has a packet filter by which Undo knows it, and that says what
// repair mode overwrites. Its first instruction has no effect but to hold the
// mark; the second takes every segment, or none.
const (
	markBase = 0x6d696700 // and SO_REUSEADDR in the lowest bit
	takeAll  = ^uint32(0)
	takeNone = 0
)

// Mark prepares a socket for repair mode: whoever has marked it may die at any
// moment. With deaf the connection drops from now on all segments that arrive,
// without an acknowledgment: what it has received does not change any more, and
// the other end sends again what it sends meanwhile. The socket must have no
// filter of its own. A second mark keeps what the first one noted.
func Mark(fd int, deaf bool) error {
	reuse, marked := marked(fd)
	if !marked {
		var err error
		if reuse, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil {
			return fmt.Errorf("getsockopt(SO_REUSEADDR): %w", err)
		}
	}
	take := uint32(takeAll)
	if deaf {
		take = takeNone
	}
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_IMM, K: markBase | uint32(reuse&1)},
		{Code: unix.BPF_RET | unix.BPF_K, K: take},
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("setsockopt(SO_ATTACH_FILTER): %w", err)
	}
	return nil
}

// Unmark ends repair mode, if the socket is in it, and Mark. It reports whether
// there was a mark.
func Unmark(fd int) (was bool, err error) {
	reuse, was := marked(fd)
	if !was {
		return false, nil
	}
	active, err := Active(fd)
	if err == nil && active {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, offQuiet)
	}
	return true, errors.Join(err,
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
}

// marked tells whether Mark was called, and what SO_REUSEADDR was then.
func marked(fd int) (reuse int, ok bool) {
	var got [8]unix.SockFilter
	n := uint32(len(got)) // instructions
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(unsafe.Pointer(&got[0])), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 || n != 2 || got[0].Code != unix.BPF_LD|unix.BPF_IMM || got[0].K&^1 != markBase || got[1].Code != unix.BPF_RET|unix.BPF_K {
		return 0, false
	}
	return int(got[0].K & 1), true
}

func hasMark(fd int) bool { _, ok := marked(fd); return ok }
