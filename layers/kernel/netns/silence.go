// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Silence is interfaces that can be made to send and receive nothing.
type Silence struct {
	n     *netfilter
	names []string
	table string
}

// silenceTable begins the tables' names.
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

// NewSilence prepares to silence interfaces of a namespace. The table that does it
// (nf_tables, family netdev, with egress: Linux 5.16) goes with its owner's
// socket: the silence ends with Lift, or with the process.
func NewSilence(ns *os.File, names []string) (*Silence, error) {
	n, err := openNetfilter(ns)
	if err != nil {
		return nil, err
	}
	s := &Silence{n, names, fmt.Sprintf("%s-%s", silenceTable, names[0])}
	list := []Change{{
		Kind: unix.NFT_MSG_NEWTABLE, Family: familyNetdev, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		Attributes: put(putString(nil, unix.NFTA_TABLE_NAME, s.table), unix.NFTA_TABLE_FLAGS, binary.BigEndian.AppendUint32(nil, tableOwned)),
	}}
	for _, c := range s.chains(verdictAccept) {
		c.flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
		list = append(list, c)
	}
	if err := n.batch(list); err != nil {
		_ = n.close()
		return nil, fmt.Errorf("silence interfaces %v (nf_tables, family netdev, with egress): %w", names, err)
	}
	return s, nil
}

// Begin silences: packets of every kind, ARP's too. Packet sockets still get what
// arrives.
func (s *Silence) Begin() error {
	if err := s.n.batch(s.chains(verdictDrop)); err != nil {
		return fmt.Errorf("silence interfaces %v: %w", s.names, err)
	}
	return nil
}

// Of netfilter.h.
const (
	verdictDrop   = 0
	verdictAccept = 1
)

// chains are those of all interfaces, with a policy.
func (s *Silence) chains(policy uint32) (list []Change) {
	for i, name := range s.names {
		for _, hook := range []uint32{ingress, egress} {
			list = append(list, s.chain(fmt.Sprintf("%d-%d", i, hook), name, hook, policy))
		}
	}
	return list
}

// chain is one at a hook of an interface.
func (s *Silence) chain(name, device string, hook, policy uint32) Change {
	priority := int32(firstPriority)
	h := put(nil, unix.NFTA_HOOK_HOOKNUM, binary.BigEndian.AppendUint32(nil, hook))
	h = put(h, unix.NFTA_HOOK_PRIORITY, binary.BigEndian.AppendUint32(nil, uint32(priority)))
	h = putString(h, hookDevice, device)
	b := putString(nil, unix.NFTA_CHAIN_TABLE, s.table)
	b = putString(b, unix.NFTA_CHAIN_NAME, name)
	b = put(b, unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, h)
	b = put(b, unix.NFTA_CHAIN_POLICY, binary.BigEndian.AppendUint32(nil, policy))
	b = putString(b, unix.NFTA_CHAIN_TYPE, "filter")
	return Change{Kind: unix.NFT_MSG_NEWCHAIN, Family: familyNetdev, Attributes: b}
}

// Lift ends the silence.
func (s *Silence) Lift() error {
	if s == nil || s.n == nil {
		return nil
	}
	err := s.n.batch([]Change{{Kind: unix.NFT_MSG_DELTABLE, Family: familyNetdev, Attributes: putString(nil, unix.NFTA_TABLE_NAME, s.table)}})
	cerr := s.n.close()
	s.n = nil
	if err == nil {
		err = cerr
	}
	return err
}
