// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package netdrop drops, in the network namespace of the calling thread, what
// arrives for named TCP connections, listeners and UDP ports. Without it a namespace
// whose sockets are gone, or not made yet, would answer by a reset or an ICMP
// error, and end a connection that is about to go on elsewhere.
//
// It is a table "mig" of nf_tables for each of IPv4 and IPv6, with three sets and
// a rule for each at the input, and another set of what has knocked. What nobody takes out of them is forgotten by the
// kernel after a while. No program is needed, but a kernel with nf_tables and
// CAP_NET_ADMIN in the namespace's user namespace. Packet sockets see what is
// dropped (packet(7)).
//
// A batch that fails makes the kernel wait for all its processors, 20 ms, while it
// holds the tables: so the functions look first and change then.
//
// Sources: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h,
// net/netfilter/nf_tables_api.c; nft(8) shows the table.
package netdrop

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Connection is a TCP connection as its segments that arrive show it. Both
// addresses are of one family, an IPv4 address never written as one of IPv6.
type Connection struct{ Source, Destination netip.AddrPort }

// Silence is what is dropped.
type Silence struct {
	// Connections drop all their segments.
	Connections []Connection
	// Listeners are ports at which new TCP connections are dropped: segments with
	// SYN and without ACK.
	Listeners []uint16
	// Datagrams are ports at which UDP is dropped.
	Datagrams []uint16
}

// Admitted is the mark (SO_MARK) of segments that arrive all the same. No host's
// bear one; a process here that may set it (CAP_NET_RAW since Linux 5.17, before
// CAP_NET_ADMIN) may forge segments of a connection that is not dropped, too.
const Admitted = 0x6d696701

// Empty tells whether nothing is dropped.
func (s Silence) Empty() bool { return len(s.Connections)+len(s.Listeners)+len(s.Datagrams) == 0 }

// Forgotten is how long something stays dropped if nobody lets it through: TCP
// itself gives up earlier (tcp(7), tcp_retries2) if it has anything to send.
const Forgotten = time.Hour

// KnockedFor is for how long Knocked knows.
const KnockedFor = 10 * time.Second

// rawPriority is NF_IP_PRI_RAW: before connection tracking, which should not see
// the packets either.
const rawPriority = -300

// Available tells whether the kernel has nf_tables. It changes nothing.
func Available() error {
	n, err := open()
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.request(unix.NFT_MSG_GETGEN); err != nil {
		return fmt.Errorf("nf_tables of the kernel (CONFIG_NF_TABLES): %w", err)
	}
	return nil
}

// tries bounds how often a change is made again because somebody else changed the
// tables meanwhile.
const tries = 5

// Drop begins to drop. added is what was not dropped before.
func Drop(s Silence) (added Silence, err error) {
	for _, c := range s.Connections {
		if !c.Source.IsValid() || !c.Destination.IsValid() || c.Source.Addr().BitLen() != c.Destination.Addr().BitLen() {
			return added, fmt.Errorf("a connection from %s to %s", c.Source, c.Destination)
		}
	}
	if s.Empty() {
		return added, nil
	}
	n, err := open()
	if err != nil {
		return added, err
	}
	defer n.close()
	for _, f := range []family{v4, v6} {
		for try := 1; ; try++ {
			fresh, err := n.drop(f, s)
			if err == nil {
				added = join(added, fresh)
				break
			}
			if try == tries || !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
				return added, fmt.Errorf("nf_tables: drop what arrives: %w", err)
			}
		}
	}
	return added, nil
}

// join is both, each port once.
func join(a, b Silence) Silence {
	ports := func(x, y []uint16) []uint16 {
		all := slices.Concat(x, y)
		slices.Sort(all)
		return slices.Compact(all)
	}
	return Silence{slices.Concat(a.Connections, b.Connections), ports(a.Listeners, b.Listeners), ports(a.Datagrams, b.Datagrams)}
}

// drop adds to one family's sets what they do not have.
func (n *netlink) drop(f family, s Silence) (added Silence, err error) {
	s = f.part(s)
	if s.Empty() {
		return s, nil
	}
	there, err := n.exists(f)
	if err != nil {
		return added, err
	}
	var before []message
	if !there {
		before = f.tableMessages()
	}
	if s, err = n.missing(f, s, there); err != nil {
		return added, err
	}
	list := append(before, f.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s)...)
	if len(list) == 0 {
		return s, nil
	}
	return s, n.batch(list)
}

// missing is what of s is not in the family's sets, each once.
func (n *netlink) missing(f family, s Silence, there bool) (Silence, error) {
	for _, set := range f.sets() {
		known := map[string]bool{}
		if there {
			var err error
			if known, err = n.keys(f, set.name); err != nil {
				return s, err
			}
		}
		set.without(&s, known)
	}
	return s, nil
}

// Knocked tells which connections somebody has tried to open at a port of Listeners, and
// whose segment was dropped for that, the first 65,535 within KnockedFor.
func Knocked(list []Connection) (map[Connection]bool, error) {
	found := map[Connection]bool{}
	n, err := open()
	if err != nil {
		return nil, err
	}
	defer n.close()
	for _, c := range list {
		for _, f := range []family{v4, v6} {
			if !f.has(c) {
				continue
			}
			b := append(text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, knocked)...)
			b = append(b, nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, element(f.key(c)))...)
			_, err := n.askFor(unix.NFT_MSG_GETSETELEM, f.protocol, b)
			if found[c] = err == nil; err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, fmt.Errorf("nf_tables: ask what was dropped: %w", err)
			}
		}
	}
	return found, nil
}

// Pass ends Drop. What is not dropped, and a namespace without the table, are no
// error. The table goes with the last of it.
func Pass(s Silence) error {
	if s.Empty() {
		return nil
	}
	n, err := open()
	if err != nil {
		return err
	}
	defer n.close()
	for _, f := range []family{v4, v6} {
		for try := 1; ; try++ {
			err := n.pass(f, s)
			if err == nil {
				break
			}
			if try == tries || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ERESTART) {
				return fmt.Errorf("nf_tables: let through what was dropped: %w", err)
			}
		}
	}
	return nil
}

// pass removes from one family's sets what they have, and the table if that is
// all. Somebody who changes the tables meanwhile makes it fail with ERESTART or
// ENOENT.
func (n *netlink) pass(f family, s Silence) error {
	s = f.part(s)
	if s.Empty() {
		return nil
	}
	generation, err := n.generation()
	if err != nil {
		return err
	}
	if there, err := n.exists(f); err != nil || !there {
		return err
	}
	gone, left := 0, 0
	for _, set := range f.sets() {
		known, err := n.keys(f, set.name)
		if err != nil {
			return err
		}
		before := len(known)
		set.within(&s, known) // takes out of known what is to go
		gone, left = gone+before-len(known), left+len(known)
	}
	switch {
	case left == 0:
		return n.batchAt(generation, []message{{unix.NFT_MSG_DELTABLE, 0, f.protocol, text(unix.NFTA_TABLE_NAME, table)}})
	case gone == 0:
		return nil
	}
	return n.batchAt(generation, f.elements(unix.NFT_MSG_DELSETELEM, 0, s))
}
