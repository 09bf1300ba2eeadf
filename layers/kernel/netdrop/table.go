// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Names of what is made.
const (
	table       = "mig"
	chain       = "input"
	connections = "connections"
	listeners   = "listeners"
	datagrams   = "datagrams"
	// knocked are connections that were dropped for the port of a listener.
	knocked = "knocked"
)

// family is what differs between IPv4 and IPv6.
type family struct {
	protocol byte // NFPROTO_*
	// The addresses in the network header, in bytes.
	source, destination, size uint32
	keyType                   uint32 // for nft(8): the types of the key's parts
}

// Types of nft(8) (include/datatype.h of nftables): six bits for each part.
const (
	typeV4   = 7
	typeV6   = 8
	typePort = 13
)

func keyType(address uint32) uint32 { return address<<18 | address<<12 | typePort<<6 | typePort }

var (
	v4 = family{unix.NFPROTO_IPV4, 12, 16, 4, keyType(typeV4)}
	v6 = family{unix.NFPROTO_IPV6, 8, 24, 16, keyType(typeV6)}
)

// part is what of a silence concerns the family: ports concern both.
func (f family) part(s Silence) Silence {
	s.Connections = slices.DeleteFunc(slices.Clone(s.Connections), func(c Connection) bool {
		return uint32(c.Source.Addr().BitLen()/8) != f.size
	})
	return s
}

// has tells whether a connection is of the family.
func (f family) has(c Connection) bool {
	return uint32(c.Source.Addr().BitLen()/8) == f.size && uint32(c.Destination.Addr().BitLen()/8) == f.size
}

// key of a connection: addresses and ports, each filled up to whole registers of
// four bytes.
func (f family) key(c Connection) string {
	return string(slices.Concat(c.Source.Addr().AsSlice(), c.Destination.Addr().AsSlice(), port(c.Source), port(c.Destination)))
}

func port(a netip.AddrPort) []byte { return append(portKey(a.Port()), 0, 0) }

func portKey(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// aSet is one of a family's sets.
type aSet struct {
	name              string
	id                uint32 // within the batch that makes it
	keyType, keyBytes uint32
	// keys of what a silence has in the set.
	keys func(s *Silence) []string
	// keep drops from a silence what the function says no to.
	keep func(s *Silence, yes func(key string) bool)
}

func (f family) sets() []aSet {
	ports := func(name string, id uint32, of func(s *Silence) *[]uint16) aSet {
		return aSet{name: name, id: id, keyType: typePort, keyBytes: 2,
			keys: func(s *Silence) (out []string) {
				for _, p := range *of(s) {
					out = append(out, string(portKey(p)))
				}
				return out
			},
			keep: func(s *Silence, yes func(string) bool) {
				*of(s) = slices.DeleteFunc(slices.Clone(*of(s)), func(p uint16) bool { return !yes(string(portKey(p))) })
			}}
	}
	return []aSet{
		{name: connections, id: 1, keyType: f.keyType, keyBytes: 2*f.size + 8,
			keys: func(s *Silence) (out []string) {
				for _, c := range s.Connections {
					out = append(out, f.key(c))
				}
				return out
			},
			keep: func(s *Silence, yes func(string) bool) {
				s.Connections = slices.DeleteFunc(slices.Clone(s.Connections), func(c Connection) bool { return !yes(f.key(c)) })
			}},
		ports(listeners, 2, func(s *Silence) *[]uint16 { return &s.Listeners }),
		ports(datagrams, 3, func(s *Silence) *[]uint16 { return &s.Datagrams }),
	}
}

// without takes what is known, and what comes twice, out of a silence.
func (set aSet) without(s *Silence, known map[string]bool) {
	set.keep(s, func(key string) bool {
		fresh := !known[key]
		known[key] = true
		return fresh
	})
}

// within leaves in a silence what is known, once, and takes that out of known.
func (set aSet) within(s *Silence, known map[string]bool) {
	set.keep(s, func(key string) bool {
		found := known[key]
		delete(known, key)
		return found
	})
}

// Registers of four bytes begin at NFT_REG32_00.
const firstRegister = unix.NFT_REG32_00

// tableMessages make the table; they fail with EEXIST if it is there.
func (f family) tableMessages() []message {
	list := []message{
		{unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE | unix.NLM_F_EXCL, f.protocol, text(unix.NFTA_TABLE_NAME, table)},
		f.chainOf(table, chain, unix.NF_INET_LOCAL_IN, rawPriority),
	}
	list = append(list, message{unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, f.protocol, slices.Concat(
		text(unix.NFTA_SET_TABLE, table), text(unix.NFTA_SET_NAME, knocked), number(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL),
		number(unix.NFTA_SET_KEY_TYPE, f.keyType), number(unix.NFTA_SET_KEY_LEN, 2*f.size+8), number(unix.NFTA_SET_ID, knockedID),
		milliseconds(unix.NFTA_SET_TIMEOUT, KnockedFor))})
	rule := func(parts [][]byte) message {
		return message{unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_APPEND, f.protocol, slices.Concat(
			text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, chain), nested(unix.NFTA_RULE_EXPRESSIONS, parts...))}
	}
	for _, set := range f.sets() {
		list = append(list,
			message{unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, f.protocol, slices.Concat(
				text(unix.NFTA_SET_TABLE, table), text(unix.NFTA_SET_NAME, set.name), number(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT),
				number(unix.NFTA_SET_KEY_TYPE, set.keyType), number(unix.NFTA_SET_KEY_LEN, set.keyBytes), number(unix.NFTA_SET_ID, set.id),
				milliseconds(unix.NFTA_SET_TIMEOUT, Forgotten))})
		found := f.lookedUp(set)
		if set.name == listeners { // what finds no room is dropped all the same
			list = append(list, rule(slices.Concat(found, f.loadConnection(), [][]byte{addTo(knocked, knockedID)})))
		}
		list = append(list, rule(append(found, verdict(drop)...)))
	}
	return list
}

// chainOf makes a table's chain, at a hook.
func (f family) chainOf(table, chain string, hook uint32, priority int32) message {
	return message{unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, f.protocol, slices.Concat(
		text(unix.NFTA_CHAIN_TABLE, table), text(unix.NFTA_CHAIN_NAME, chain), text(unix.NFTA_CHAIN_TYPE, "filter"),
		nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, hook), number(unix.NFTA_HOOK_PRIORITY, uint32(priority))),
		number(unix.NFTA_CHAIN_POLICY, accept))}
}

// Verdicts of include/uapi/linux/netfilter.h.
const (
	drop   = 0
	accept = 1
)

func milliseconds(kind uint16, d time.Duration) []byte {
	return attribute(kind, binary.BigEndian.AppendUint64(nil, uint64(d.Milliseconds())))
}

// Bytes of a transport header.
const (
	sourcePort      = 0
	destinationPort = 2
	tcpFlags        = 13
)

// Flags of TCP.
const fin, syn, rst, ack = 1 << 0, 1 << 1, 1 << 2, 1 << 4

// knockedID is within the batch that makes the table, beside those of sets.
const knockedID = 4

// lookedUp ends a rule for what is not in a set: if the packet is one of its protocol,
// load what the key is made of, look the key up.
func (f family) lookedUp(set aSet) (list [][]byte) {
	const transport = unix.NFT_PAYLOAD_TRANSPORT_HEADER
	switch set.name {
	case connections:
		list = append(f.protocolIs(unix.IPPROTO_TCP), meta(unix.NFT_META_MARK), differs(Admitted))
		list = append(list, f.loadConnection()...)
	case listeners:
		list = append(f.tcpFlagged(syn|ack, syn), load(0, transport, destinationPort, 2))
	case datagrams: // to this host alone: what is for a group package packet does not take
		list = append(f.protocolIs(unix.IPPROTO_UDP),
			meta(unix.NFT_META_PKTTYPE), equals(unix.PACKET_HOST), load(0, transport, destinationPort, 2))
	}
	return append(list, isIn(set.name, set.id))
}

// tcpFlagged ends the rule if the packet is not TCP's, or of some flags others are set.
func (f family) tcpFlagged(of, set byte) [][]byte {
	return append(f.protocolIs(unix.IPPROTO_TCP), load(0, unix.NFT_PAYLOAD_TRANSPORT_HEADER, tcpFlags, 1), masked(of), equals(set))
}

// isIn ends the rule if a set does not have the key in the registers from the first one
// on.
func isIn(set string, id uint32) []byte {
	return expression("lookup", text(unix.NFTA_LOOKUP_SET, set), number(unix.NFTA_LOOKUP_SREG, firstRegister), number(unix.NFTA_LOOKUP_SET_ID, id))
}

// addTo adds the key in the registers to a set, and ends the rule if there is no room.
func addTo(set string, id uint32) []byte {
	return expression("dynset", text(unix.NFTA_DYNSET_SET_NAME, set), number(unix.NFTA_DYNSET_SET_ID, id),
		number(unix.NFTA_DYNSET_OP, dynsetAdd), number(unix.NFTA_DYNSET_SREG_KEY, firstRegister))
}

const dynsetAdd = 0 // NFT_DYNSET_OP_ADD

// verdict ends the chain.
func verdict(code uint32) [][]byte {
	return [][]byte{expression("immediate", number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
		nested(unix.NFTA_IMMEDIATE_DATA, nested(unix.NFTA_DATA_VERDICT, number(unix.NFTA_VERDICT_CODE, code))))}
}

// loadConnection loads the key of an arriving segment's connection, loadReply that of one
// that leaves.
func (f family) loadConnection() [][]byte {
	return f.loadKey(f.source, f.destination, sourcePort, destinationPort)
}

func (f family) loadReply() [][]byte {
	return f.loadKey(f.destination, f.source, destinationPort, sourcePort)
}

func (f family) loadKey(from, to, fromPort, toPort uint32) [][]byte {
	const network, transport = unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFT_PAYLOAD_TRANSPORT_HEADER
	words := f.size / 4
	return [][]byte{
		load(0, network, from, f.size), load(words, network, to, f.size),
		load(2*words, transport, fromPort, 2), load(2*words+1, transport, toPort, 2),
	}
}

func (f family) protocolIs(p byte) [][]byte {
	return [][]byte{
		meta(unix.NFT_META_L4PROTO),
		equals(p),
	}
}

// load copies bytes of a header into registers.
func load(register, base, offset, size uint32) []byte {
	return expression("payload", number(unix.NFTA_PAYLOAD_DREG, firstRegister+register), number(unix.NFTA_PAYLOAD_BASE, base),
		number(unix.NFTA_PAYLOAD_OFFSET, offset), number(unix.NFTA_PAYLOAD_LEN, size))
}

// masked leaves some bits of the first register's byte.
func masked(bits byte) []byte {
	return expression("bitwise", number(unix.NFTA_BITWISE_SREG, firstRegister), number(unix.NFTA_BITWISE_DREG, firstRegister), number(unix.NFTA_BITWISE_LEN, 1),
		nested(unix.NFTA_BITWISE_MASK, attribute(unix.NFTA_DATA_VALUE, []byte{bits})), nested(unix.NFTA_BITWISE_XOR, attribute(unix.NFTA_DATA_VALUE, []byte{0})))
}

// equals ends the rule if the first register's byte is another one.
func equals(b byte) []byte {
	return expression("cmp", number(unix.NFTA_CMP_SREG, firstRegister), number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ),
		nested(unix.NFTA_CMP_DATA, attribute(unix.NFTA_DATA_VALUE, []byte{b})))
}

// meta loads what the kernel knows of the packet into the first register.
func meta(key uint32) []byte {
	return expression("meta", number(unix.NFTA_META_DREG, firstRegister), number(unix.NFTA_META_KEY, key))
}

// equalsShort ends the rule if the first register's two bytes are another number, in host
// byte order.
func equalsShort(n uint16) []byte {
	return expression("cmp", number(unix.NFTA_CMP_SREG, firstRegister), number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ),
		nested(unix.NFTA_CMP_DATA, attribute(unix.NFTA_DATA_VALUE, binary.NativeEndian.AppendUint16(nil, n))))
}

// differs ends the rule if the first register is a number, in host byte order.
func differs(n uint32) []byte {
	return expression("cmp", number(unix.NFTA_CMP_SREG, firstRegister), number(unix.NFTA_CMP_OP, unix.NFT_CMP_NEQ),
		nested(unix.NFTA_CMP_DATA, attribute(unix.NFTA_DATA_VALUE, binary.NativeEndian.AppendUint32(nil, n))))
}

func expression(name string, data ...[]byte) []byte {
	return nested(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nested(unix.NFTA_EXPR_DATA, data...))
}

func element(key string) []byte {
	return nested(unix.NFTA_LIST_ELEM, nested(unix.NFTA_SET_ELEM_KEY, attribute(unix.NFTA_DATA_VALUE, []byte(key))))
}

// elementsAtOnce bounds the elements of one message: an attribute has 64 KB.
const elementsAtOnce = 500

// elements adds what a silence has to the sets, or removes it.
func (f family) elements(kind, flags uint16, s Silence) (out []message) {
	for _, set := range f.sets() {
		for part := range slices.Chunk(set.keys(&s), elementsAtOnce) {
			list := make([][]byte, len(part))
			for i, key := range part {
				list[i] = element(key)
			}
			out = append(out, message{kind, flags, f.protocol, slices.Concat(
				text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, set.name), nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list...))})
		}
	}
	return out
}
