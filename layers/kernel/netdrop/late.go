// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ended is a TCP connection that has come to its end: whatever arrives for it is late.
type Ended struct {
	Connection
	// Left is for how long something may still come.
	Left time.Duration
}

// LateFor is the longest Left. A kernel whose socket nobody has sends its FIN again,
// if nobody acknowledges it, until 256 times its time-out have passed
// (net/ipv4/tcp_timer.c, tcp_orphan_retries): for a minute, where that is 0.2 s.
const LateFor = 2 * time.Minute

// Late drops segments of connections that have ended, each for a while or until
// somebody opens it anew: a segment with SYN, from whichever end it comes, takes the
// connection out. It is a table of nf_tables for each of IPv4 and IPv6 that belongs to
// a socket (NFT_TABLE_F_OWNER, Linux 5.12): who has a duplicate of that keeps it.
type Late struct {
	n     *netlink
	table string
	has   []family
}

// Names of what is made. Tables of several sockets are told apart by the sockets'
// numbers.
const (
	lateTables = table + "-late-"
	lateSet    = "ended"
)

// Of nf_tables.h.
const (
	tableOwned    = 2 // NFT_TABLE_F_OWNER
	dynsetDelete  = 2 // NFT_DYNSET_OP_DELETE, Linux 5.4
	lateSetID     = 1
	elementsBatch = 1000 // less than a socket's buffer holds
)

// NewLate makes tables in which nothing is yet, in the network namespace of the
// calling thread. The caller must Close it.
func NewLate() (*Late, error) {
	n, err := open()
	if err != nil {
		return nil, err
	}
	l := &Late{n: n}
	if err := unix.Bind(n.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		n.close()
		return nil, os.NewSyscallError("bind(NETLINK_NETFILTER)", err)
	}
	name, err := unix.Getsockname(n.fd)
	if err != nil {
		n.close()
		return nil, os.NewSyscallError("getsockname(NETLINK_NETFILTER)", err)
	}
	l.table = fmt.Sprint(lateTables, name.(*unix.SockaddrNetlink).Pid)
	for _, f := range []family{v4, v6} {
		err = n.batch(f.lateMessages(l.table))
		switch {
		case err == nil:
			l.has = append(l.has, f)
		case len(l.has) == 0:
			n.close()
			return nil, fmt.Errorf("a table of nf_tables with an owner (Linux 5.12): %w", err)
		}
	}
	return l, nil
}

// lateMessages make one family's table.
func (f family) lateMessages(table string) []message {
	const create = unix.NLM_F_CREATE
	rule := func(parts ...[]byte) message {
		return message{unix.NFT_MSG_NEWRULE, create | unix.NLM_F_APPEND, f.protocol, slices.Concat(
			text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, chain), nested(unix.NFTA_RULE_EXPRESSIONS, parts...))}
	}
	begins := append(f.protocolIs(unix.IPPROTO_TCP), load(0, unix.NFT_PAYLOAD_TRANSPORT_HEADER, tcpFlags, 1), masked(syn), equals(syn))
	begins = append(begins, f.loadConnection()...)
	begins = append(begins, expression("dynset", text(unix.NFTA_DYNSET_SET_NAME, lateSet), number(unix.NFTA_DYNSET_SET_ID, lateSetID),
		number(unix.NFTA_DYNSET_OP, dynsetDelete), number(unix.NFTA_DYNSET_SREG_KEY, firstRegister)))
	late := append(f.protocolIs(unix.IPPROTO_TCP), f.loadConnection()...)
	return []message{
		{unix.NFT_MSG_NEWTABLE, create | unix.NLM_F_EXCL, f.protocol, append(text(unix.NFTA_TABLE_NAME, table), number(unix.NFTA_TABLE_FLAGS, tableOwned)...)},
		f.chainOf(table, chain, unix.NF_INET_LOCAL_IN, rawPriority),
		{unix.NFT_MSG_NEWSET, create, f.protocol, slices.Concat(
			text(unix.NFTA_SET_TABLE, table), text(unix.NFTA_SET_NAME, lateSet), number(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL),
			number(unix.NFTA_SET_KEY_TYPE, f.keyType), number(unix.NFTA_SET_KEY_LEN, 2*f.size+8), number(unix.NFTA_SET_ID, lateSetID),
			milliseconds(unix.NFTA_SET_TIMEOUT, LateFor))},
		rule(begins...),
		rule(append(append(late, isIn(lateSet, lateSetID)), verdict(drop)...)...),
	}
}

// Drop begins to drop. One that is there already, and one of a family that the kernel
// does not have, are no error.
func (l *Late) Drop(list []Ended) error {
	for _, f := range l.has {
		seen := map[string]bool{}
		var elements [][]byte
		for _, e := range list {
			if !f.has(e.Connection) || seen[f.key(e.Connection)] {
				continue
			}
			key := f.key(e.Connection)
			seen[key] = true
			left := max(min(e.Left, LateFor), time.Millisecond)
			elements = append(elements, nested(unix.NFTA_LIST_ELEM,
				nested(unix.NFTA_SET_ELEM_KEY, attribute(unix.NFTA_DATA_VALUE, []byte(key))), milliseconds(unix.NFTA_SET_ELEM_TIMEOUT, left)))
		}
		for part := range slices.Chunk(elements, elementsBatch) {
			if err := l.n.batch(f.lateElements(l.table, part)); err != nil {
				return fmt.Errorf("nf_tables: drop what is late: %w", err)
			}
		}
	}
	return nil
}

func (f family) lateElements(table string, elements [][]byte) (list []message) {
	for part := range slices.Chunk(elements, elementsAtOnce) {
		list = append(list, message{unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, f.protocol, slices.Concat(
			text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, lateSet), nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, part...))})
	}
	return list
}

// File is a duplicate of the socket that owns the tables, which are there until the
// last one is closed. It is the caller's.
func (l *Late) File() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(l.n.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	return os.NewFile(uintptr(fd), l.table), nil
}

// Close ends it, soon, unless somebody has a duplicate.
func (l *Late) Close() { l.n.close() }

// ListLate lists what is dropped by whatever Late of the calling thread's network
// namespace. A kernel without nf_tables drops nothing.
func ListLate() (list []Ended, err error) {
	n, err := open()
	if err != nil {
		return nil, nil
	}
	defer n.close()
	tables := map[byte][]string{} // by their families
	err = n.dump(unix.NFT_MSG_GETTABLE, unix.AF_UNSPEC, nil, func(b []byte) {
		for _, name := range find(b[min(4, len(b)):], unix.NFTA_TABLE_NAME) {
			if s := strings.TrimRight(string(name), "\x00"); strings.HasPrefix(s, lateTables) {
				tables[b[0]] = append(tables[b[0]], s)
			}
		}
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no nf_tables
	}
	for _, f := range []family{v4, v6} {
		for _, table := range tables[f.protocol] {
			b := append(text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, lateSet)...)
			one := n.dump(unix.NFT_MSG_GETSETELEM, f.protocol, b, func(b []byte) {
				eachElement(b, func(key string, attributes []byte) { list = f.appendEnded(list, key, attributes) })
			})
			if !errors.Is(one, unix.ENOENT) { // it went meanwhile
				err = errors.Join(err, one)
			}
		}
	}
	return list, err
}

// appendEnded reads one element.
func (f family) appendEnded(list []Ended, key string, attributes []byte) []Ended {
	if len(key) != int(2*f.size+8) {
		return list
	}
	end := func(address, port string) netip.AddrPort {
		a, _ := netip.AddrFromSlice([]byte(address))
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(port)))
	}
	ports := key[2*f.size:]
	e := Ended{Connection{end(key[:f.size], ports[:2]), end(key[f.size:2*f.size], ports[4:6])}, LateFor}
	for _, v := range find(attributes, unix.NFTA_SET_ELEM_EXPIRATION) {
		if len(v) == 8 {
			e.Left = time.Duration(min(binary.BigEndian.Uint64(v), uint64(LateFor.Milliseconds()))) * time.Millisecond
		}
	}
	return append(list, e)
}
