// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Watch is told of changes in a network namespace: of everything that List and
// Tables show, but of the neighbours that the kernel finds and forgets by itself.
type Watch struct{ fds []int }

// watched are the multicast groups of rtnetlink.h and nfnetlink.h.
var watched = map[int][]int{
	unix.NETLINK_ROUTE: {
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
	},
	unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
}

// NewWatch begins to watch the calling thread's namespace.
func NewWatch() (*Watch, error) {
	w := &Watch{}
	for protocol, groups := range watched {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			continue // a kernel without netfilter
		}
		if err != nil {
			return nil, errors.Join(os.NewSyscallError("socket(AF_NETLINK)", err), w.Close())
		}
		w.fds = append(w.fds, fd)
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, errors.Join(os.NewSyscallError("bind(AF_NETLINK)", err), w.Close())
		}
		for _, g := range groups {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
				return nil, errors.Join(os.NewSyscallError("setsockopt(NETLINK_ADD_MEMBERSHIP)", err), w.Close())
			}
		}
	}
	return w, nil
}

// Changed reports whether anything has changed since the watch began, or was
// asked last. It waits for nothing.
func (w *Watch) Changed() bool {
	changed := false
	for _, fd := range w.fds {
		changed = drain(fd) || changed
	}
	return changed
}

// drain takes what has come.
func drain(fd int) (changed bool) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return changed
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return true // too much has changed for the socket's buffer
		}
		changed = changed || !expected(buf[:n])
	}
}

// expected: messages tell of nothing but neighbours that the kernel sees to, and
// of mig's own tables.
func expected(b []byte) bool {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false
		}
		kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]
		switch {
		case kind == unix.RTM_NEWNEIGH || kind == unix.RTM_DELNEIGH:
			if len(body) < unix.SizeofNdMsg || binary.NativeEndian.Uint16(body[8:])&unix.NUD_PERMANENT != 0 || body[10]&unix.NTF_PROXY != 0 {
				return false
			}
		case kind>>8 == unix.NFNL_SUBSYS_NFTABLES:
			if kind&0xff != unix.NFT_MSG_NEWGEN && !ofOwnTable(body) {
				return false
			}
		default:
			return false
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return true
}

// ofOwnTable: a message of nf_tables is of one of mig's tables, whose name is the
// first attribute of every kind.
func ofOwnTable(body []byte) bool {
	const name = 1
	if len(body) < nfgenmsgSize {
		return false
	}
	list, err := parse(body[nfgenmsgSize:])
	return err == nil && ownTable(text(list, name))
}

// Close ends it.
func (w *Watch) Close() error {
	var errs []error
	for _, fd := range w.fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}
