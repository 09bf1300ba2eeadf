// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/state"
)

// Limits of what an image may bring.
const (
	maxEncoded  = 16 << 20 // bytes in all
	maxLinks    = 64
	maxMessages = 1 << 16 // of one category
	maxClasses  = 1 << 12 // and queueing disciplines
	maxSettings = 1 << 14
	maxChanges  = 1 << 17
	maxTables   = 16
	maxText     = 256 // of an alias, IFALIASZ of if.h
	maxMAC      = 32  // MAX_ADDR_LEN of netdevice.h
)

// decode reads and checks a namespace. Messages come back trimmed.
func decode(b []byte) (*state.Network, error) {
	if len(b) > maxEncoded {
		return nil, fmt.Errorf("a namespace of %d bytes, the limit is %d", len(b), maxEncoded)
	}
	n := &state.Network{}
	if err := proto.Unmarshal(b, n); err != nil {
		return nil, err
	}
	if len(n.Link) > maxLinks || len(n.Setting) > maxSettings || len(n.Netfilter) > maxChanges || len(n.Table) > maxTables {
		return nil, fmt.Errorf("a namespace of %s: more than the limits", summary(n))
	}
	if err := checkLinks(n.Link); err != nil {
		return nil, err
	}
	known := indices(n.Link)
	for c, field := range messages(n) {
		if len(*field) > maxMessages || c >= int(netns.Disciplines) && len(*field) > maxClasses {
			return nil, fmt.Errorf("%d messages of category %s, the limit is %d", len(*field), netns.Category(c), maxMessages)
		}
		for i, b := range *field {
			t, err := netns.Trim(netns.Category(c), b)
			if err != nil || t == nil {
				return nil, errors.Join(fmt.Errorf("message %d of category %s is none", i, netns.Category(c)), err)
			}
			if !of(netns.Category(c), t, known) {
				return nil, fmt.Errorf("%s %s names an interface that is not there", netns.Category(c), netns.Describe(netns.Category(c), t))
			}
			if c == int(netns.Addresses) {
				if _, err := netns.ParseAddress(t); err != nil {
					return nil, err
				}
			}
			(*field)[i] = t
		}
	}
	for _, c := range n.Netfilter {
		if c.Kind > math.MaxUint8 || c.Family > math.MaxUint8 {
			return nil, fmt.Errorf("a change of nf_tables of kind %d, family %d", c.Kind, c.Family)
		}
		t, err := netns.TrimChange(netns.Change{Kind: uint16(c.Kind), Family: byte(c.Family), Attributes: c.Attributes})
		if err != nil {
			return nil, err
		}
		c.Attributes = t.Attributes
	}
	for _, s := range n.Setting {
		if err := (netns.Setting{Name: s.Name, Value: s.Value}).Valid(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func checkLinks(list []*state.NetworkLink) error {
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for _, l := range list {
		if !network.ValidName(l.Name) || l.Kind != netns.KindCNI && l.To != "" && !network.ValidName(l.To) || l.Outer != "" && !network.ValidName(l.Outer) {
			return fmt.Errorf("interface %.20q (%.20q, %.20q): no names of interfaces", l.Name, l.To, l.Outer)
		}
		if l.Index == 0 || l.Index > math.MaxInt32 || names[l.Name] || numbers[l.Index] {
			return fmt.Errorf("interface %s, number %d: it comes twice, or has no number", l.Name, l.Index)
		}
		names[l.Name], numbers[l.Index] = true, true
		if len(l.Alias) > maxText || len(l.Address) > maxMAC {
			return fmt.Errorf("interface %s: an alias of %d and an address of %d bytes", l.Name, len(l.Alias), len(l.Address))
		}
		switch l.Kind {
		case netns.KindLoopback, netns.KindVeth, netns.KindMacvlan, netns.KindDummy, netns.KindCNI:
		default:
			return fmt.Errorf("interface %s is of the kind %.20q, which is not made", l.Name, l.Kind)
		}
		if (l.Kind == netns.KindLoopback) != (l.Name == "lo") {
			return fmt.Errorf("interface %s is of the kind %s", l.Name, l.Kind)
		}
	}
	return nil
}

// of tells whether all interfaces that a message names are known.
func of(c netns.Category, body []byte, known map[uint32]uint32) bool {
	return renumber(c, body, known) == nil
}

var errUnknownInterface = errors.New("an interface that is not there")

// renumber puts other numbers of interfaces into a message. 0 is none.
func renumber(c netns.Category, body []byte, numbers map[uint32]uint32) error {
	return netns.EachIndex(c, body, func(place []byte) error {
		n := binary.NativeEndian.Uint32(place)
		if n == 0 {
			return nil
		}
		to, ok := numbers[n]
		if !ok {
			return errUnknownInterface
		}
		binary.NativeEndian.PutUint32(place, to)
		return nil
	})
}
