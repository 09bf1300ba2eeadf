// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
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

// keys of the connections that are of the family: addresses and ports, each
// filled up to whole registers of four bytes.
func (f family) keys(list []Connection) (out [][]byte) {
	for _, c := range list {
		if uint32(c.Source.Addr().BitLen()/8) != f.size {
			continue
		}
		key := slices.Concat(c.Source.Addr().AsSlice(), c.Destination.Addr().AsSlice(), port(c.Source), port(c.Destination))
		out = append(out, key)
	}
	return out
}

func port(a netip.AddrPort) []byte {
	return append(binary.BigEndian.AppendUint16(nil, a.Port()), 0, 0)
}

// Registers of four bytes begin at NFT_REG32_00.
const firstRegister = unix.NFT_REG32_00

// tableMessages make the table; they fail with EEXIST if it is there.
func (f family) tableMessages() []message {
	const id = 1
	keySize := 2*f.size + 8
	return []message{
		{unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE | unix.NLM_F_EXCL, f.protocol, text(unix.NFTA_TABLE_NAME, table)},
		{unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, f.protocol, slices.Concat(
			text(unix.NFTA_SET_TABLE, table), text(unix.NFTA_SET_NAME, set), number(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT),
			number(unix.NFTA_SET_KEY_TYPE, f.keyType), number(unix.NFTA_SET_KEY_LEN, keySize), number(unix.NFTA_SET_ID, id),
			attribute(unix.NFTA_SET_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(Forgotten.Milliseconds()))))},
		{unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, f.protocol, slices.Concat(
			text(unix.NFTA_CHAIN_TABLE, table), text(unix.NFTA_CHAIN_NAME, chain), text(unix.NFTA_CHAIN_TYPE, "filter"),
			nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_LOCAL_IN), number(unix.NFTA_HOOK_PRIORITY, uint32(priority()))),
			number(unix.NFTA_CHAIN_POLICY, accept))},
		{unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_APPEND, f.protocol, slices.Concat(
			text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, chain), nested(unix.NFTA_RULE_EXPRESSIONS, f.expressions(id)...))},
	}
}

// Verdicts of include/uapi/linux/netfilter.h.
const (
	drop   = 0
	accept = 1
)

// priority is rawPriority as the kernel's signed number.
func priority() int32 { return rawPriority }

// expressions are the rule: if the segment is one of TCP, load addresses and
// ports side by side, look the key up, drop.
func (f family) expressions(id uint32) [][]byte {
	words := f.size / 4
	load := func(register, base, offset, size uint32) []byte {
		return expression("payload", number(unix.NFTA_PAYLOAD_DREG, firstRegister+register), number(unix.NFTA_PAYLOAD_BASE, base),
			number(unix.NFTA_PAYLOAD_OFFSET, offset), number(unix.NFTA_PAYLOAD_LEN, size))
	}
	return [][]byte{
		expression("meta", number(unix.NFTA_META_DREG, firstRegister), number(unix.NFTA_META_KEY, unix.NFT_META_L4PROTO)),
		expression("cmp", number(unix.NFTA_CMP_SREG, firstRegister), number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ),
			nested(unix.NFTA_CMP_DATA, attribute(unix.NFTA_DATA_VALUE, []byte{unix.IPPROTO_TCP}))),
		load(0, unix.NFT_PAYLOAD_NETWORK_HEADER, f.source, f.size),
		load(words, unix.NFT_PAYLOAD_NETWORK_HEADER, f.destination, f.size),
		load(2*words, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2),
		load(2*words+1, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
		expression("lookup", text(unix.NFTA_LOOKUP_SET, set), number(unix.NFTA_LOOKUP_SREG, firstRegister), number(unix.NFTA_LOOKUP_SET_ID, id)),
		expression("immediate", number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
			nested(unix.NFTA_IMMEDIATE_DATA, nested(unix.NFTA_DATA_VERDICT, number(unix.NFTA_VERDICT_CODE, drop)))),
	}
}

func expression(name string, data ...[]byte) []byte {
	return nested(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nested(unix.NFTA_EXPR_DATA, data...))
}

// element adds or removes one connection.
func (f family) element(kind, flags uint16, key []byte) message {
	return message{kind, flags, f.protocol, slices.Concat(
		text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, set),
		nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, nested(unix.NFTA_LIST_ELEM, nested(unix.NFTA_SET_ELEM_KEY, attribute(unix.NFTA_DATA_VALUE, key)))))}
}
