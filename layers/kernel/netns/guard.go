// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// guardTable begins the names of guards' tables.
const guardTable = ownPrefix + "-guard"

// Guard keeps what comes to the bridges of the caller's host by ports that are not
// there yet from saying that it has these addresses, hardware or not: whoever
// makes an interface for a container announces it, while another host still has
// them. It is a table of nf_tables of the family bridge (CONFIG_NF_TABLES_BRIDGE),
// which sees packets before the bridge learns from them, and holds until Unguard,
// whoever calls that. name tells guards apart.
func Guard(name string, macs []net.HardwareAddr, addresses []netip.Addr) error {
	h, err := Open(nil)
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.Links()
	if err != nil {
		return err
	}
	n, err := openNetfilter(nil)
	if err != nil {
		return err
	}
	defer n.close()
	table := guardTable + "-" + name
	list := guardTables(table)
	rule := func(expressions ...[]byte) {
		b := putString(putString(nil, unix.NFTA_RULE_TABLE, table), unix.NFTA_RULE_CHAIN, "in")
		var all []byte
		for _, e := range expressions {
			all = append(all, e...)
		}
		b = put(b, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, all)
		list = append(list, Change{Kind: unix.NFT_MSG_NEWRULE, Family: unix.NFPROTO_BRIDGE, Attributes: b, flags: unix.NLM_F_CREATE | unix.NLM_F_APPEND})
	}
	for _, l := range links {
		if l.Master != 0 {
			rule(loadMeta(unix.NFT_META_IIF), equal(binary.NativeEndian.AppendUint32(nil, uint32(l.Index))), verdict(verdictAccept))
		}
	}
	const source, sender = 6, 14 // in an Ethernet header, in an ARP packet
	for _, mac := range macs {
		rule(loadPayload(unix.NFT_PAYLOAD_LL_HEADER, source, uint32(len(mac))), equal(mac), verdict(verdictDrop))
	}
	for _, a := range addresses {
		if a.Is4() {
			rule(loadMeta(unix.NFT_META_PROTOCOL), equal(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP)),
				loadPayload(unix.NFT_PAYLOAD_NETWORK_HEADER, sender, 4), equal(a.AsSlice()), verdict(verdictDrop))
		}
	}
	if err := n.batch(list); err != nil {
		return fmt.Errorf("guard the bridges of this host (nf_tables, family bridge): %w", err)
	}
	return nil
}

// Unguard ends a guard, if there is one.
func Unguard(name string) error {
	n, err := openNetfilter(nil)
	if err != nil {
		return err
	}
	defer n.close()
	err = n.batch([]Change{{Kind: unix.NFT_MSG_DELTABLE, Family: unix.NFPROTO_BRIDGE, Attributes: putString(nil, unix.NFTA_TABLE_NAME, guardTable+"-"+name)}})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}

// guardTables make a table and a chain at the hook of all bridges' ports.
func guardTables(table string) []Change {
	priority := int32(rawPriority)
	hook := put(nil, unix.NFTA_HOOK_HOOKNUM, binary.BigEndian.AppendUint32(nil, bridgePreRouting))
	hook = put(hook, unix.NFTA_HOOK_PRIORITY, binary.BigEndian.AppendUint32(nil, uint32(priority)))
	chain := putString(putString(nil, unix.NFTA_CHAIN_TABLE, table), unix.NFTA_CHAIN_NAME, "in")
	chain = putString(put(chain, unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, hook), unix.NFTA_CHAIN_TYPE, "filter")
	return []Change{
		{
			Kind: unix.NFT_MSG_NEWTABLE, Family: unix.NFPROTO_BRIDGE, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
			Attributes: putString(nil, unix.NFTA_TABLE_NAME, table),
		},
		{Kind: unix.NFT_MSG_NEWCHAIN, Family: unix.NFPROTO_BRIDGE, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Attributes: chain},
	}
}

// rawPriority is before everything that a person is likely to have there.
const rawPriority = -300

// bridgePreRouting is NF_BR_PRE_ROUTING of netfilter_bridge.h.
const bridgePreRouting = 0

// expression is one of a rule, with its attributes.
func expression(name string, data []byte) []byte {
	return put(nil, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, put(putString(nil, unix.NFTA_EXPR_NAME, name), unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data))
}

func big(kind uint16, n uint32) []byte {
	return put(nil, kind, binary.BigEndian.AppendUint32(nil, n))
}

func loadMeta(key uint32) []byte {
	return expression("meta", append(big(unix.NFTA_META_KEY, key), big(unix.NFTA_META_DREG, unix.NFT_REG_1)...))
}

func loadPayload(base, offset, size uint32) []byte {
	b := append(big(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1), big(unix.NFTA_PAYLOAD_BASE, base)...)
	b = append(b, big(unix.NFTA_PAYLOAD_OFFSET, offset)...)
	return expression("payload", append(b, big(unix.NFTA_PAYLOAD_LEN, size)...))
}

func equal(value []byte) []byte {
	b := append(big(unix.NFTA_CMP_SREG, unix.NFT_REG_1), big(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)...)
	return expression("cmp", put(b, unix.NFTA_CMP_DATA|unix.NLA_F_NESTED, put(nil, unix.NFTA_DATA_VALUE, value)))
}

func verdict(code uint32) []byte {
	v := put(nil, unix.NFTA_DATA_VERDICT|unix.NLA_F_NESTED, big(unix.NFTA_VERDICT_CODE, code))
	b := big(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	return expression("immediate", put(b, unix.NFTA_IMMEDIATE_DATA|unix.NLA_F_NESTED, v))
}
