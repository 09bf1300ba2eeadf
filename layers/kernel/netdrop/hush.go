// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Hush keeps a network namespace from resetting TCP connections that it never had: those
// of another host's, whose segments come here late. It knows those that it is told of,
// and those that are opened after it was made, from whichever end.
//
// A kernel that finds no connection for a segment with ACK answers by a reset without
// ACK (RFC 9293, 3.10.7; net/ipv4/tcp_ipv4.c, tcp_v4_send_reset), and says nothing else
// by such a one about a connection that it does not have. So these are dropped where
// they leave, if they are for a connection that is not known. Others get out: what
// refuses a connection has ACK, what a program ends without a word, too; and what does
// not leave the host is of no interest. A program that sends such segments by itself, by
// a raw socket, has to have sent or seen a SYN before.
//
// Several in one namespace (containers of a pod that arrive one after the other) know
// what one of them does: it marks what gets out (Told).
//
// It is a table of nf_tables for each of IPv4 and IPv6 that belongs to a socket
// (NFT_TABLE_F_OWNER, Linux 5.12): who has a duplicate of that keeps it.
type Hush struct {
	n     *netlink
	table string
	has   []family
}

// HushFor is for how long segments may be late. A kernel whose socket nobody has sends
// its FIN again, if nobody acknowledges it, until 256 times its time-out have passed
// (net/ipv4/tcp_timer.c, tcp_orphan_retries): for a minute, where that is 0.2 s.
const HushFor = 2 * time.Minute

// Names of what is made. Tables of several sockets are told apart by the sockets'
// numbers.
const (
	hushTables = table + "-hush-"
	output     = "output"
	last       = "last"
	ports      = "ports"
	full       = "full"
)

// knownSets are filled one after the other: the kernel lets each grow to 65,535, as
// long as nobody says how many there will be, for which it would make room at once
// (nft_dynset_init). A host that opens more connections than they hold, 2184 a second,
// is not kept from anything any more.
var knownSets = []string{"known1", "known2", "known3", "known4"}

// Of nf_tables.h and if_arp.h, and numbers of sets within a batch, those of knownSets
// being the first.
const (
	tableOwned    = 2 // NFT_TABLE_F_OWNER
	loopbackType  = 772
	portsID       = 10
	fullID        = 11
	elementsBatch = 1000 // less than a socket's buffer holds
	roomOfSet     = 65_000
)

// Priorities: what Drop drops is known, too, and the last chains of all tables come
// behind those that mark.
const (
	hushPriority = rawPriority - 1
	lastPriority = rawPriority
)

// Told is the mark of resets that get out. It ends where they leave the namespace.
const Told = 0x6d696702

// NewHush begins to know what is opened, and keeps the network namespace of the calling
// thread from nothing yet: see Begin. local are the ports of that network's ends that
// are meant, nil for all. The caller must Close it.
func NewHush(local []uint16) (*Hush, error) {
	n, err := open()
	if err != nil {
		return nil, err
	}
	h := &Hush{n: n}
	if err := unix.Bind(n.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		n.close()
		return nil, os.NewSyscallError("bind(NETLINK_NETFILTER)", err)
	}
	name, err := unix.Getsockname(n.fd)
	if err != nil {
		n.close()
		return nil, os.NewSyscallError("getsockname(NETLINK_NETFILTER)", err)
	}
	h.table = fmt.Sprint(hushTables, name.(*unix.SockaddrNetlink).Pid)
	for _, f := range []family{v4, v6} {
		err = n.batch(h.messages(f, local))
		switch {
		case err == nil:
			h.has = append(h.has, f)
		case len(h.has) == 0:
			n.close()
			return nil, fmt.Errorf("a table of nf_tables with an owner (Linux 5.12): %w", err)
		}
	}
	return h, nil
}

// messages make one family's table.
func (h *Hush) messages(f family, local []uint16) []message {
	const create = unix.NLM_F_CREATE
	list := []message{
		{unix.NFT_MSG_NEWTABLE, create | unix.NLM_F_EXCL, f.protocol, append(text(unix.NFTA_TABLE_NAME, h.table), number(unix.NFTA_TABLE_FLAGS, tableOwned)...)},
		f.chainOf(h.table, chain, unix.NF_INET_LOCAL_IN, hushPriority),
		f.chainOf(h.table, output, unix.NF_INET_LOCAL_OUT, hushPriority),
		f.chainOf(h.table, last, unix.NF_INET_LOCAL_OUT, lastPriority),
		h.set(f, full, fullID, 1, 0, unix.NFT_SET_EVAL),
	}
	for i, name := range knownSets {
		list = append(list, h.set(f, name, uint32(1+i), 2*f.size+8, f.keyType, unix.NFT_SET_EVAL))
	}
	if local != nil {
		list = append(list, h.set(f, ports, portsID, 2, typePort, 0), h.portElements(f, local))
		list = append(list, h.rule(f, chain, f.otherPort(destinationPort)), h.rule(f, output, f.otherPort(sourcePort)), h.rule(f, last, f.otherPort(sourcePort)))
	}
	list = append(list, h.know(f, chain, f.loadConnection())...)
	// What goes over the loopback comes to the input.
	for _, chain := range []string{output, last} {
		list = append(list, h.rule(f, chain, slices.Concat([][]byte{meta(unix.NFT_META_OIFTYPE), equalsShort(loopbackType)}, verdict(accept))))
	}
	list = append(list, h.know(f, output, f.loadReply())...)
	told := func(parts ...[]byte) {
		list = append(list, h.rule(f, output, slices.Concat(f.lone(), parts, mark(Told), verdict(accept))))
	}
	told(meta(unix.NFT_META_L4PROTO), isIn(full, fullID))
	for i, name := range knownSets {
		told(append(f.loadReply(), isIn(name, uint32(1+i)))...)
	}
	return list
}

// lone ends the rule for what is no reset without ACK.
func (f family) lone() [][]byte { return f.tcpFlagged(fin|syn|rst|ack, rst) }

// mark sets the packet's.
func mark(n uint32) [][]byte {
	return [][]byte{
		expression("immediate", number(unix.NFTA_IMMEDIATE_DREG, firstRegister),
			nested(unix.NFTA_IMMEDIATE_DATA, attribute(unix.NFTA_DATA_VALUE, binary.NativeEndian.AppendUint32(nil, n)))),
		expression("meta", number(unix.NFTA_META_SREG, firstRegister), number(unix.NFTA_META_KEY, unix.NFT_META_MARK)),
	}
}

// know has known what a segment opens, whose key is loaded, or that there is no room.
func (h *Hush) know(f family, chain string, loaded [][]byte) (list []message) {
	begins := f.tcpFlagged(syn|ack, syn)
	for i, name := range knownSets {
		// What finds no room ends the rule, and comes to the next one.
		list = append(list, h.rule(f, chain, slices.Concat(begins, loaded, [][]byte{addTo(name, uint32(1+i))}, verdict(accept))))
	}
	return append(list, h.rule(f, chain, slices.Concat(begins, [][]byte{meta(unix.NFT_META_L4PROTO), addTo(full, fullID)})))
}

func (h *Hush) rule(f family, chain string, parts [][]byte) message {
	return message{unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_APPEND, f.protocol, slices.Concat(
		text(unix.NFTA_RULE_TABLE, h.table), text(unix.NFTA_RULE_CHAIN, chain), nested(unix.NFTA_RULE_EXPRESSIONS, parts...))}
}

func (h *Hush) set(f family, name string, id, size, keyType, flags uint32) message {
	return message{unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, f.protocol, slices.Concat(
		text(unix.NFTA_SET_TABLE, h.table), text(unix.NFTA_SET_NAME, name), number(unix.NFTA_SET_FLAGS, flags),
		number(unix.NFTA_SET_KEY_TYPE, keyType), number(unix.NFTA_SET_KEY_LEN, size), number(unix.NFTA_SET_ID, id))}
}

func (h *Hush) elements(f family, set string, keys []string) message {
	var list [][]byte
	for _, key := range keys {
		list = append(list, element(key))
	}
	return message{unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, f.protocol, slices.Concat(
		text(unix.NFTA_SET_ELEM_LIST_TABLE, h.table), text(unix.NFTA_SET_ELEM_LIST_SET, set), nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list...))}
}

func (h *Hush) portElements(f family, list []uint16) message {
	var keys []string
	for _, p := range list {
		keys = append(keys, string(portKey(p)))
	}
	return h.elements(f, ports, keys)
}

// otherPort ends a chain for what is not of the ports that are meant.
func (f family) otherPort(at uint32) [][]byte {
	list := append(f.protocolIs(unix.IPPROTO_TCP), load(0, unix.NFT_PAYLOAD_TRANSPORT_HEADER, at, 2))
	list = append(list, expression("lookup", text(unix.NFTA_LOOKUP_SET, ports), number(unix.NFTA_LOOKUP_SREG, firstRegister),
		number(unix.NFTA_LOOKUP_SET_ID, portsID), number(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)))
	return append(list, verdict(accept)...)
}

// Begin keeps the namespace from resetting what is not known. known are connections
// that there were before: one that is known already, and one of a family that the
// kernel does not have, are no error. It is called once.
func (h *Hush) Begin(known []Connection) error {
	for _, f := range h.has {
		var list []message
		var keys []string
		for _, c := range known {
			if f.has(c) {
				keys = append(keys, f.key(c))
			}
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
		if len(keys) > len(knownSets)*roomOfSet {
			return fmt.Errorf("nf_tables: %d connections are more than can be told apart", len(keys))
		}
		for i, some := range slices.Collect(slices.Chunk(keys, roomOfSet)) {
			for part := range slices.Chunk(some, elementsAtOnce) {
				list = append(list, h.elements(f, knownSets[i], part))
			}
		}
		list = append(list, h.rule(f, last, slices.Concat(f.lone(), [][]byte{meta(unix.NFT_META_MARK), differs(Told)}, verdict(drop))))
		for part := range slices.Chunk(list, elementsBatch/elementsAtOnce) {
			if err := h.n.batch(part); err != nil {
				return fmt.Errorf("nf_tables: drop what nobody is to be told: %w", err)
			}
		}
	}
	return nil
}

// File is a duplicate of the socket that owns the tables, which are there until the
// last one is closed. It is the caller's.
func (h *Hush) File() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(h.n.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	return os.NewFile(uintptr(fd), h.table), nil
}

// Close ends it, soon, unless somebody has a duplicate.
func (h *Hush) Close() { h.n.close() }
