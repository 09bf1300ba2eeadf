// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
)

// Mismatch is a reason why a host cannot give a container its network.
type Mismatch struct{ What, Why, Remedy string }

// probePatience is how long others on a network are given to say that they have
// an address. Hosts answer ARP within a millisecond or so.
const probePatience = 400 * time.Millisecond

// Consider looks whether the caller's host has what a request ties interfaces to,
// and whether somebody has their addresses. It changes nothing, and asks the
// networks. The source itself still answers, with a hardware address of its own.
func Consider(r *network.Request, m network.Mapping) ([]Mismatch, error) {
	if r == nil || !r.Own {
		return nil, nil
	}
	host, err := netns.Open(nil)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	var found []Mismatch
	tied := map[string][]*network.Interface{}
	source := map[string]bool{} // hardware addresses
	for i := range r.Interfaces {
		n := &r.Interfaces[i]
		source[n.MAC] = true
		bad, err := considerTie(host, n)
		if err != nil {
			return nil, err
		}
		if bad != nil {
			found = append(found, *bad)
		} else if n.To != "" && n.Kind != network.CNI {
			tied[n.To] = append(tied[n.To], n)
		}
	}
	own, err := ownAddresses(host)
	if err != nil {
		return nil, err
	}
	for to, list := range tied {
		taken, err := considerAddresses(host, to, list, own, source, m)
		if err != nil {
			return nil, err
		}
		found = append(found, taken...)
	}
	return found, nil
}

// considerTie looks for what an interface is tied to.
func considerTie(host *netns.Handle, n *network.Interface) (*Mismatch, error) {
	what := "interface " + n.Name
	switch n.Kind {
	case network.Dummy, network.CNI: // package shim/cni looks for its networks
		return nil, nil
	case network.Veth:
		_, err := bridgeOf(host, n.To)
		if err != nil {
			return &Mismatch{what, fmt.Sprintf("it is to be a port of the bridge %s: %v", n.To, err), "make the bridge, or move with --policy " + network.Option + "=" + network.Leave}, nil
		}
		return nil, nil
	case network.Macvlan:
		_, err := host.Link(n.To)
		if errors.Is(err, unix.ENODEV) {
			return &Mismatch{what, fmt.Sprintf("it is to be on the interface %s, and there is none on this host", n.To), ""}, nil
		}
		return nil, err
	}
	return &Mismatch{what, fmt.Sprintf("interfaces of kind %q are not made", n.Kind), ""}, nil
}

func ownAddresses(host *netns.Handle) (map[netip.Addr]bool, error) {
	list, err := host.List(netns.Addresses)
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr]bool{}
	for _, b := range list {
		a, err := netns.ParseAddress(b)
		if err != nil {
			return nil, err
		}
		own[a.Prefix.Addr()] = true
	}
	return own, nil
}

// considerAddresses asks one network for the addresses that it is to get. The source
// answers by any of its interfaces there for the addresses of all (ip-sysctl.rst,
// arp_ignore).
func considerAddresses(host *netns.Handle, to string, list []*network.Interface, own map[netip.Addr]bool, source map[string]bool, m network.Mapping) (found []Mismatch, err error) {
	of := map[netip.Addr]*network.Interface{}
	var ask []netip.Addr
	for _, n := range list {
		for _, p := range n.Addresses {
			a := m.Of(p.Addr())
			if a.IsLinkLocalUnicast() {
				continue // made from the hardware address, which comes along
			}
			if own[a] {
				found = append(found, taken(n, a, "this host has it itself"))
				continue
			}
			of[a] = n
			ask = append(ask, a)
		}
	}
	l, err := host.Link(to)
	if err != nil || !l.Up() || len(ask) == 0 {
		return found, err
	}
	answers, err := netns.Probe(&l, ask, probePatience)
	if err != nil {
		return nil, err
	}
	for _, a := range ask {
		for _, mac := range answers[a] {
			if !source[mac.String()] {
				found = append(found, taken(of[a], a, "the host with the hardware address "+net.HardwareAddr(mac).String()+" has it, which is not the container's"))
				break
			}
		}
	}
	return found, nil
}

func taken(n *network.Interface, a netip.Addr, why string) Mismatch {
	return Mismatch{fmt.Sprintf("address %s of interface %s", a, n.Name), why, fmt.Sprintf("free the address, or move with --map-ip %s=OTHER", a)}
}
