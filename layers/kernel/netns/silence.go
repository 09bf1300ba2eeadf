// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Silence is interfaces that send and receive nothing.
type Silence struct{ n *netfilter }

// silenceTable is the table's name.
const silenceTable = "mig-silence"

// Of nf_tables.h and netfilter.h.
const (
	tableOwned    = 2 // NFT_TABLE_F_OWNER
	egress        = 1 // NF_NETDEV_EGRESS
	ingress       = 0 // NF_NETDEV_INGRESS
	hookDevice    = 3 // NFTA_HOOK_DEV
	familyNetdev  = 5 // NFPROTO_NETDEV
	firstPriority = -0x7fffffff
)

// Silent silences interfaces of a namespace until Lift, or until the process
// ends: the table that does it (nf_tables, family netdev, Linux 5.16) goes with
// its owner's socket. It holds for packets of every kind, ARP's too.
func Silent(ns *os.File, names []string) (*Silence, error) {
	n, err := openNetfilter(ns)
	if err != nil {
		return nil, err
	}
	list := []Change{{
		Kind: unix.NFT_MSG_NEWTABLE, Family: familyNetdev, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		Attributes: put(putString(nil, unix.NFTA_TABLE_NAME, silenceTable), unix.NFTA_TABLE_FLAGS, binary.BigEndian.AppendUint32(nil, tableOwned)),
	}}
	for i, name := range names {
		for _, hook := range []uint32{ingress, egress} {
			list = append(list, silentChain(fmt.Sprintf("%d-%d", i, hook), name, hook))
		}
	}
	if err := n.batch(list); err != nil {
		_ = n.close()
		return nil, fmt.Errorf("silence interfaces %v (nf_tables, family netdev, with egress): %w", names, err)
	}
	return &Silence{n}, nil
}

// silentChain drops what passes a hook of an interface.
func silentChain(chain, device string, hook uint32) Change {
	const drop = 0 // NF_DROP
	priority := int32(firstPriority)
	h := put(nil, unix.NFTA_HOOK_HOOKNUM, binary.BigEndian.AppendUint32(nil, hook))
	h = put(h, unix.NFTA_HOOK_PRIORITY, binary.BigEndian.AppendUint32(nil, uint32(priority)))
	h = putString(h, hookDevice, device)
	b := putString(nil, unix.NFTA_CHAIN_TABLE, silenceTable)
	b = putString(b, unix.NFTA_CHAIN_NAME, chain)
	b = put(b, unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, h)
	b = put(b, unix.NFTA_CHAIN_POLICY, binary.BigEndian.AppendUint32(nil, drop))
	b = putString(b, unix.NFTA_CHAIN_TYPE, "filter")
	return Change{Kind: unix.NFT_MSG_NEWCHAIN, Family: familyNetdev, Attributes: b, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL}
}

// Lift ends the silence.
func (s *Silence) Lift() error {
	if s == nil || s.n == nil {
		return nil
	}
	err := s.n.batch([]Change{{Kind: unix.NFT_MSG_DELTABLE, Family: familyNetdev, Attributes: putString(nil, unix.NFTA_TABLE_NAME, silenceTable)}})
	cerr := s.n.close()
	s.n = nil
	if err == nil {
		err = cerr
	}
	return err
}
