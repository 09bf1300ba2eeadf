// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package netns reads and makes what a network namespace holds: interfaces,
// addresses, routes, rules, neighbours, queueing disciplines, settings, and the
// rules of nf_tables and of the older iptables.
//
// What the kernel has in messages stays in messages: a dump of rtnetlink or of
// nf_tables is what a request to make the same has to say. So addresses, routes
// and the rest travel as the bodies of the kernel's messages, cut down to the
// attributes that this package knows (shapes.go): what a kernel adds to a dump
// for information goes, and an image cannot say anything else.
//
// Functions work through sockets that were opened in the namespace; only
// /proc/sys/net, packets and the tables of iptables need a thread in it.
//
// Sources: rtnetlink(7), netlink(7), include/uapi/linux/{rtnetlink,if_link,
// if_addr,fib_rules,neighbour,pkt_sched}.h, include/uapi/linux/netfilter/nf_tables.h,
// Documentation/networking/ip-sysctl.rst.
package netns

import (
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Handle is a socket of NETLINK_ROUTE in a network namespace. It is for one
// goroutine at a time.
type Handle struct{ conn *netlink.Conn }

// Open opens a handle in the namespace that ns is (a link of /proc/PID/ns/net);
// nil is that of the caller.
func Open(ns *os.File) (*Handle, error) {
	c, err := dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &Handle{c}, nil
}

// receiveBuffer is room for the answers to a batch, in bytes.
const receiveBuffer = 8 << 20

func dial(ns *os.File, family int) (*netlink.Conn, error) {
	var config netlink.Config
	if ns != nil {
		config.NetNS = int(ns.Fd())
	}
	c, err := netlink.Dial(family, &config)
	if err != nil {
		return nil, fmt.Errorf("netlink(7), family %d: %w", family, err)
	}
	// The extended answer says which attribute the kernel does not like.
	_ = c.SetOption(netlink.ExtendedAcknowledge, true)
	_ = c.SetReadBuffer(receiveBuffer)
	return c, nil
}

// Close closes it.
func (h *Handle) Close() error { return h.conn.Close() }

// do makes one change.
func (h *Handle) do(kind uint16, flags netlink.HeaderFlags, body []byte) error {
	_, err := h.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   body,
	})
	return reason(err)
}

// dump asks for everything of a kind.
func (h *Handle) dump(kind uint16, body []byte) ([][]byte, error) {
	list, err := h.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump},
		Data:   body,
	})
	if err != nil {
		return nil, reason(err)
	}
	out := make([][]byte, 0, len(list))
	for _, m := range list {
		out = append(out, m.Data)
	}
	return out, nil
}

// ask asks for one thing.
func (h *Handle) ask(kind uint16, body []byte) ([]byte, error) {
	list, err := h.conn.Execute(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request}, Data: body})
	if err != nil {
		return nil, reason(err)
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("netlink: %d answers to one question", len(list))
	}
	return list[0].Data, nil
}

// reason takes the kernel's errno and its words out of the library's error.
func reason(err error) error {
	var op *netlink.OpError
	if !errors.As(err, &op) {
		return err
	}
	var errno unix.Errno
	if !errors.As(op.Err, &errno) {
		return err
	}
	if op.Message != "" {
		return fmt.Errorf("%w (the kernel: %s)", errno, op.Message)
	}
	return errno
}
