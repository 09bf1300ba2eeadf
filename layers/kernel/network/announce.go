// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/state"
)

// Announce tells the networks of a container that goes on after all that its addresses
// are here, as the destination of its move may have told them of there: bridges and
// switches would send there what is for the container until it says something by itself.
// The container is that of a process; what has the host's network says nothing.
func Announce(pid int) error {
	own, err := ownNetwork(pid)
	if err != nil || !own {
		return err
	}
	ns, err := open(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	n, err := readAddresses(ns)
	if err != nil {
		return err
	}
	a, err := announcerOf(ns, n, asItIs)
	if err != nil {
		return err
	}
	return errors.Join(a.Announce(), a.Close())
}

// readAddresses reads interfaces and their addresses, and nothing else.
func readAddresses(ns *os.File) (*state.Network, error) {
	h, err := netns.Open(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.Links()
	if err != nil {
		return nil, err
	}
	n := &state.Network{}
	for _, l := range links {
		n.Link = append(n.Link, &state.NetworkLink{Index: uint32(l.Index), Address: l.Address, Flags: l.Flags})
	}
	n.Address, err = h.List(netns.Addresses)
	return n, err
}

// asItIs announces every address by the interface that it is on.
func asItIs(l *state.NetworkLink, ip netip.Addr) (int, netip.Addr, bool) {
	return int(l.Index), ip, true
}

// announcerOf prepares what a namespace's interfaces that are up say of their addresses.
// where says by which number of an interface, and as which address, one is announced, or
// that it is not.
func announcerOf(ns *os.File, n *state.Network, where func(*state.NetworkLink, netip.Addr) (int, netip.Addr, bool)) (*netns.Announcer, error) {
	var a *netns.Announcer
	if err := inside(ns, func() (err error) { a, err = netns.NewAnnouncer(); return err }); err != nil {
		return nil, err
	}
	links := map[uint32]*state.NetworkLink{}
	for _, l := range n.Link {
		links[l.Index] = l
	}
	for _, body := range n.Address {
		parsed, err := netns.ParseAddress(body)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("announce an address: %w", err), a.Close())
		}
		l := links[uint32(parsed.Index)]
		if l == nil || l.Flags&unix.IFF_UP == 0 {
			continue
		}
		if index, ip, ok := where(l, parsed.Prefix.Addr()); ok {
			a.Add(index, l.Address, ip)
		}
	}
	return a, nil
}
