// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package tcprepair is the kernel's repair mode of TCP sockets (TCP_REPAIR of
// tcp(7), Linux 3.5; CAP_NET_ADMIN in the user namespace of the socket's
// network namespace): the mechanism by which the state of a connection is read,
// and a connection is made without a handshake.
//
// While a socket is in repair mode the kernel receives for it as ever, but what
// is sent goes into a queue that is named, nothing is transmitted by shutdown(2),
// and close(2) tells the other end nothing. An application cannot use such a
// socket: its recv(2) fails with EPERM. So repair mode is only entered while the
// container is frozen, and of sockets that were marked before (Mark): Undo ends it
// where an engine died meanwhile.
//
// Sources: net/ipv4/tcp.c (do_tcp_setsockopt, tcp_recvmsg_locked, __tcp_close),
// net/ipv4/tcp_output.c (tcp_write_xmit), include/uapi/linux/tcp.h.
package tcprepair

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Values of TCP_REPAIR in include/uapi/linux/tcp.h.
const (
	off      = 0
	on       = 1
	offQuiet = -1 // without a window probe, Linux 4.19
)

// Queues of TCP_REPAIR_QUEUE.
const (
	NoQueue = 0
	Receive = 1
	Send    = 2
)

// Enter puts a socket into repair mode and returns what has to be put back
// afterwards: the kernel overwrites SO_REUSEADDR.
func Enter(fd int) (reuse int, err error) {
	if reuse, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil {
		return 0, fmt.Errorf("getsockopt(SO_REUSEADDR): %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, on); err != nil {
		return 0, fmt.Errorf("setsockopt(TCP_REPAIR): %w", err)
	}
	return reuse, nil
}

// Leave ends repair mode. With probe the kernel asks the other end for an
// acknowledgment, which tells how much arrived and how large its window is.
func Leave(fd, reuse int, probe bool) error {
	v := offQuiet
	if probe {
		v = off
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, v); err != nil {
		return fmt.Errorf("setsockopt(TCP_REPAIR): %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse); err != nil {
		return fmt.Errorf("setsockopt(SO_REUSEADDR): %w", err)
	}
	return nil
}

// Active tells whether a socket is in repair mode.
func Active(fd int) (bool, error) {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
	return v == on, err
}

// Select chooses the queue that Sequence, SetSequence, recv(2) and send(2) mean.
func Select(fd, queue int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return fmt.Errorf("setsockopt(TCP_REPAIR_QUEUE): %w", err)
	}
	return nil
}

// Sequence is the number behind the last byte of the selected queue.
func Sequence(fd int) (uint32, error) {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	if err != nil {
		return 0, fmt.Errorf("getsockopt(TCP_QUEUE_SEQ): %w", err)
	}
	return uint32(v), nil
}

// SetSequence sets where the selected queue begins, before the socket is
// connected.
func SetSequence(fd int, n uint32) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(int32(n))); err != nil {
		return fmt.Errorf("setsockopt(TCP_QUEUE_SEQ): %w", err)
	}
	return nil
}

// Window is struct tcp_repair_window: what each end may send, and by which
// segment it was told.
type Window struct {
	SendUpdate  uint32 // snd_wl1: sequence of the segment that set Send
	Send        uint32 // snd_wnd
	LargestSend uint32 // max_window
	Receive     uint32 // rcv_wnd
	ReceiveFrom uint32 // rcv_wup: rcv_nxt when Receive was announced
}

// GetWindow reads the windows of a socket in repair mode.
func GetWindow(fd int) (w Window, err error) {
	n := uint32(unsafe.Sizeof(w))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, uintptr(unsafe.Pointer(&w)), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return w, fmt.Errorf("getsockopt(TCP_REPAIR_WINDOW): %w", e)
	}
	return w, nil
}

// SetWindow sets them.
func SetWindow(fd int, w Window) error {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, uintptr(unsafe.Pointer(&w)), unsafe.Sizeof(w), 0)
	if e != 0 {
		return fmt.Errorf("setsockopt(TCP_REPAIR_WINDOW): %w", e)
	}
	return nil
}

// Options are what the two ends agreed upon in their handshake.
type Options struct {
	MSS                     uint32 // the largest segment that the other end takes, in bytes
	SACK, Timestamps        bool
	SendScale, ReceiveScale uint32 // shifts of the windows; 0 without window scaling
}

// Kinds of TCP options (RFC 9293, 7323, 2018).
const (
	optionMSS        = 2
	optionWindow     = 3
	optionSACK       = 4
	optionTimestamps = 8
)

// SetOptions sets them on a connected socket. A window scale is always given:
// without it the kernel would keep the one that it had chosen for the receiving
// side before it connected.
func SetOptions(fd int, o Options) error {
	list := [][2]uint32{{optionMSS, o.MSS}, {optionWindow, o.SendScale | o.ReceiveScale<<16}}
	if o.SACK {
		list = append(list, [2]uint32{optionSACK, 0})
	}
	if o.Timestamps {
		list = append(list, [2]uint32{optionTimestamps, 0})
	}
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, uintptr(unsafe.Pointer(&list[0])), uintptr(8*len(list)), 0)
	if e != 0 {
		return fmt.Errorf("setsockopt(TCP_REPAIR_OPTIONS): %w", e)
	}
	return nil
}
