// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/state"
)

// readNamespace reads everything; settings only if asked for.
func readNamespace(ns *os.File, settings bool, cni map[string]string) (*state.Network, error) {
	links, err := readLinks(ns, cni)
	if err != nil {
		return nil, err
	}
	n := &state.Network{SettingsAsBefore: !settings}
	for i := range links {
		if l := &links[i]; l.carried() {
			n.Link = append(n.Link, l.message())
		}
	}
	h, err := netns.Open(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	known := indices(n.Link)
	for c, field := range messages(n) {
		list, err := h.List(netns.Category(c))
		if err != nil {
			return nil, err
		}
		for _, b := range list {
			if of(netns.Category(c), b, known) {
				*field = append(*field, b)
			}
		}
	}
	if err := readFilters(ns, n); err != nil {
		return nil, err
	}
	if settings {
		if n.Setting, err = readSettings(ns); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// messages are the fields of a network that are lists of the kernel's messages,
// by their category.
func messages(n *state.Network) []*[][]byte {
	return []*[][]byte{&n.Address, &n.Route, &n.Rule, &n.Neighbour, &n.Discipline, &n.Class}
}

// readFilters reads the rules of nf_tables and iptables.
func readFilters(ns *os.File, n *state.Network) error {
	changes, err := netns.Tables(ns)
	if err != nil {
		return err
	}
	for _, c := range changes {
		n.Netfilter = append(n.Netfilter, &state.NetfilterChange{Kind: uint32(c.Kind), Family: uint32(c.Family), Attributes: c.Attributes})
	}
	var tables []netns.FilterTable
	if err := inside(ns, func() (err error) { tables, err = netns.FilterTables(); return err }); err != nil {
		return err
	}
	for _, t := range tables {
		n.Table = append(n.Table, &state.FilterTable{
			Family: uint32(t.Family), Name: t.Name, ValidHooks: t.Hooks, Entries: t.Entries,
			HookEntry: t.Entry[:], Underflow: t.Underflow[:], Content: t.Content,
		})
	}
	return nil
}

func readSettings(ns *os.File) (out []*state.NetworkSetting, err error) {
	err = inside(ns, func() error {
		list, err := netns.Settings()
		for _, s := range list {
			out = append(out, &state.NetworkSetting{Name: s.Name, Value: s.Value})
		}
		return err
	})
	return out, err
}

// indices are the numbers of interfaces.
func indices(links []*state.NetworkLink) map[uint32]uint32 {
	m := map[uint32]uint32{}
	for _, l := range links {
		m[l.Index] = l.Index
	}
	return m
}

// link is an interface and what it is tied to.
type link struct {
	netns.Link
	to, outer string
	// problem says why it cannot be made again, empty if it can.
	problem string
	// idle: it is down and has no address: one that the kernel makes in every
	// namespace, as tunnels' modules do.
	idle bool
}

// carried: it is made again.
func (l *link) carried() bool { return l.problem == "" }

func (l *link) message() *state.NetworkLink {
	return &state.NetworkLink{
		Index: uint32(l.Index), Name: l.Name, Kind: l.Kind, Alias: l.Alias, Mtu: l.MTU, Address: l.Address, Flags: l.Flags,
		TxQueue: l.TxQueue, Group: l.Group, Mode: l.Mode, ModeFlags: l.ModeFlags, To: l.to, Outer: l.outer,
	}
}

// fromMessage is message's inverse, without the ties.
func fromMessage(m *state.NetworkLink) netns.Link {
	return netns.Link{
		Index: int(m.Index), Name: m.Name, Kind: m.Kind, Alias: m.Alias, MTU: m.Mtu, Address: net.HardwareAddr(m.Address), Flags: m.Flags,
		TxQueue: m.TxQueue, Group: m.Group, Mode: m.Mode, ModeFlags: m.ModeFlags, OtherNS: -1,
	}
}

// readLinks lists the interfaces of a namespace, and finds out what they are tied
// to on the caller's. Those of CNI are tied to their network.
func readLinks(ns *os.File, cni map[string]string) ([]link, error) {
	in, err := netns.Open(ns)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	host, err := netns.Open(nil)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	list, err := in.Links()
	if err != nil {
		return nil, err
	}
	addresses, err := in.List(netns.Addresses)
	if err != nil {
		return nil, err
	}
	has := map[int]bool{}
	for _, b := range addresses {
		if a, err := netns.ParseAddress(b); err == nil {
			has[a.Index] = true
		}
	}
	t := ties{host: host, in: in, ns: ns}
	out := make([]link, len(list))
	for i, l := range list {
		out[i] = link{Link: l, idle: !l.Up() && !has[l.Index]}
		if net := cni[l.Name]; net != "" {
			out[i].Kind, out[i].to = netns.KindCNI, net
			continue
		}
		if err := t.find(&out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ties finds what of the host interfaces of a container are tied to.
type ties struct {
	host, in *netns.Handle
	ns       *os.File
	// ids by which the container's namespace knows the host's, and the other way
	// round; found when needed.
	hostID *int
}

// find sets where l is tied to, or its problem.
func (t *ties) find(l *link) error {
	switch l.Kind {
	case netns.KindLoopback, netns.KindDummy:
		return nil
	case netns.KindVeth, netns.KindMacvlan:
	case "":
		l.problem = "it is a device of the machine"
		return nil
	default:
		l.problem = "interfaces of kind " + l.Kind + " are not made again"
		return nil
	}
	here, err := t.outside(l)
	if err != nil {
		return err
	}
	if !here {
		l.problem = "what it is tied to is in another namespace than the host's"
		return nil
	}
	other, err := t.host.LinkByIndex(l.Other)
	if errors.Is(err, unix.ENODEV) {
		l.problem = "what it is tied to is gone"
		return nil
	}
	if err != nil {
		return err
	}
	if l.Kind == netns.KindMacvlan {
		l.to = other.Name
		return nil
	}
	return t.bridge(l, &other)
}

// bridge finds the bridge that the other end of a veth is a port of.
func (t *ties) bridge(l *link, outer *netns.Link) error {
	l.outer = outer.Name
	if outer.Master == 0 {
		l.problem = fmt.Sprintf("its other end, %s, is no port of a bridge: routes to it are the host's", outer.Name)
		return nil
	}
	master, err := t.host.LinkByIndex(outer.Master)
	if err != nil {
		return err
	}
	if master.Kind != "bridge" {
		l.problem = fmt.Sprintf("its other end, %s, is a port of %s, which is no bridge but %s", outer.Name, master.Name, master.Kind)
		return nil
	}
	l.to = master.Name
	return nil
}

// outside: the interface's other part is in the host's namespace.
func (t *ties) outside(l *link) (bool, error) {
	if l.OtherNS < 0 {
		return false, nil
	}
	if t.hostID == nil {
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return false, err
		}
		defer own.Close()
		id, err := t.in.NamespaceOf(own)
		if err != nil {
			return false, err
		}
		t.hostID = &id
	}
	return l.OtherNS == *t.hostID, nil
}

// Describe says which interfaces a container's namespace has, as a request for
// its copy. It is nil where nothing is made again: the namespace is not the
// container's own, or it is left to others.
func Describe(pid int, own bool, options map[string]string) (*network.Request, error) {
	ns, err := open(pid)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if options[network.Option] == network.Leave {
		return nil, nil
	}
	cni, err := network.ParseCNI(options[network.OptionCNI])
	if err != nil {
		return nil, err
	}
	links, err := readLinks(ns, cni)
	if err != nil {
		return nil, err
	}
	h, err := netns.Open(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	addresses, err := h.List(netns.Addresses)
	if err != nil {
		return nil, err
	}
	r := &network.Request{Own: own}
	for i := range links {
		l := &links[i]
		if l.Loopback() || own && !l.carried() {
			continue
		}
		n := network.Interface{Name: l.Name, Kind: l.Kind, To: l.to, Outer: l.outer, MAC: l.Address.String()}
		for _, b := range addresses {
			if a, err := netns.ParseAddress(b); err == nil && a.Index == l.Index {
				n.Addresses = append(n.Addresses, a.Prefix)
			}
		}
		r.Interfaces = append(r.Interfaces, n)
	}
	return r, r.Valid()
}
