// SPDX-License-Identifier: Apache-2.0

// Package network says what a live request gives the network namespace of a
// container that is made again: which interfaces, with which addresses, tied to
// what of the host. An image can ask for no others.
package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Option is the policy (annotation io.mig/network) for the interfaces of a
// container's own network namespace.
const Option = "network"

const (
	// Rebuild makes them again. It is what a move does; of an image it has to be
	// asked for, since it ties the container to what the image names.
	Rebuild = "rebuild"
	// Leave leaves interfaces, addresses, routes and everything else of the
	// namespace to whoever makes the container.
	Leave = "leave"
)

// OptionMap is the policy (annotation io.mig/map-ip) that gives the copy other
// addresses: OLD=NEW, several separated by commas.
const OptionMap = "map-ip"

// OptionCNI is the policy (annotation io.mig/cni) that names interfaces which CNI
// plug-ins have made, and their networks: INTERFACE=NETWORK, several separated by
// commas. A move finds out by itself where libcni keeps records.
const OptionCNI = "cni"

// ParseCNI reads OptionCNI: networks by interfaces.
func ParseCNI(s string) (map[string]string, error) {
	m := map[string]string{}
	if s == "" {
		return m, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		name, net, ok := strings.Cut(part, "=")
		if !ok || !ValidName(name) || !validNetwork(net) || m[name] != "" {
			return nil, fmt.Errorf("%s: %.80q is not INTERFACE=NETWORK", OptionCNI, part)
		}
		m[name] = net
	}
	return m, nil
}

// EncodeCNI is ParseCNI's inverse.
func EncodeCNI(m map[string]string) string {
	var parts []string
	for name, net := range m {
		parts = append(parts, name+"="+net)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// validNetwork tells whether CNI takes a name for a network (utils.go of its
// library: letters, digits, and some more behind the first).
func validNetwork(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return s != "" && len(s) <= maxNetwork
}

// OptionRequest is the annotation, without its prefix, by which a destination's
// daemon hands a Request to the engine.
const OptionRequest = "incoming-network"

// Kinds of interfaces that are made again.
const (
	Veth    = "veth"
	Macvlan = "macvlan"
	Dummy   = "dummy"
	// CNI is an interface of any kind that CNI plug-ins make; its To is the name of
	// the network.
	CNI = "cni"
)

// Request is what a container's namespace gets.
type Request struct {
	// Own: the namespace is the container's own, so that what is in it is made
	// again; otherwise its addresses are only looked for.
	Own bool `json:"own,omitempty"`
	// Guard names what keeps the host's bridges from believing the copy before the
	// engine has silenced it: see netns.Guard. The destination sets it.
	Guard string `json:"guard,omitempty"`
	// Move names what the other ends of interfaces are marked by that are made on the
	// host, so that they are found when nobody lives any more who has made them. The
	// destination sets it.
	Move       string      `json:"move,omitempty"`
	Interfaces []Interface `json:"interfaces,omitempty"`
}

// Interface is one interface of the container.
type Interface struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// To is the bridge of the host that the other end of a veth is a port of, or
	// the interface of the host that a macvlan is on.
	To string `json:"to,omitempty"`
	// Outer is the name of the other end of a veth, if that is free.
	Outer string `json:"outer,omitempty"`
	// MAC is the hardware address.
	MAC string `json:"mac,omitempty"`
	// Addresses with the lengths of their networks.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// Limits of a request.
const (
	maxInterfaces = 64
	maxAddresses  = 1024 // of an interface
	maxNetwork    = 128  // of a name of a CNI network
	maxName       = 15   // IFNAMSIZ of if.h, without the zero
	// MaxEncoded bounds a request as text, in bytes.
	MaxEncoded = 256 << 10
)

// Valid checks what any request must be.
func (r *Request) Valid() error {
	if len(r.Interfaces) > maxInterfaces {
		return fmt.Errorf("a network of %d interfaces, at most %d", len(r.Interfaces), maxInterfaces)
	}
	if len(r.Move) > maxName || strings.ContainsAny(r.Move, "/\x00") {
		return fmt.Errorf("%.20q is no name of a move", r.Move)
	}
	if len(r.Guard) > maxName || strings.ContainsAny(r.Guard, "/\x00") {
		return fmt.Errorf("%.20q is no name of a guard", r.Guard)
	}
	var errs []error
	seen := map[string]bool{}
	for i := range r.Interfaces {
		n := &r.Interfaces[i]
		if seen[n.Name] {
			errs = append(errs, fmt.Errorf("interface %s comes twice", n.Name))
		}
		seen[n.Name] = true
		errs = append(errs, n.valid())
	}
	return errors.Join(errs...)
}

func (n *Interface) valid() error {
	to := ValidName
	if n.Kind == CNI {
		to = validNetwork
	}
	if !ValidName(n.Name) || n.To != "" && !to(n.To) || n.Outer != "" && !ValidName(n.Outer) {
		return fmt.Errorf("interfaces %.20q, %.20q, %.20q: one of them is no name of an interface", n.Name, n.To, n.Outer)
	}
	if len(n.Addresses) > maxAddresses {
		return fmt.Errorf("interface %s has %d addresses, at most %d", n.Name, len(n.Addresses), maxAddresses)
	}
	for _, a := range n.Addresses {
		if !a.IsValid() || a.Addr().Zone() != "" {
			return fmt.Errorf("interface %s: %s is no address", n.Name, a)
		}
	}
	if n.MAC != "" {
		if _, err := net.ParseMAC(n.MAC); err != nil {
			return fmt.Errorf("interface %s: %w", n.Name, err)
		}
	}
	return nil
}

// ValidName tells whether the kernel takes a name for an interface
// (dev_valid_name of net/core/dev.c).
func ValidName(s string) bool {
	return s != "" && len(s) <= maxName && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '/' || r == ':' || r <= ' ' || r == 0x7f
	})
}

// CNI tells whether CNI makes interfaces of the request.
func (r *Request) CNI() bool {
	return slices.ContainsFunc(r.Interfaces, func(n Interface) bool { return n.Kind == CNI })
}

// Find is an interface by its name, nil if the request has none.
func (r *Request) Find(name string) *Interface {
	if i := slices.IndexFunc(r.Interfaces, func(n Interface) bool { return n.Name == name }); i >= 0 {
		return &r.Interfaces[i]
	}
	return nil
}

// Has tells whether the interface is given an address.
func (n *Interface) Has(a netip.Addr) bool {
	return slices.ContainsFunc(n.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

// Encode writes a request as text.
func (r *Request) Encode() (string, error) {
	b, err := json.Marshal(r)
	if err == nil && len(b) > MaxEncoded {
		err = fmt.Errorf("a network of %d bytes as text, at most %d", len(b), MaxEncoded)
	}
	return string(b), err
}

// Decode reads what Encode has written.
func Decode(s string) (*Request, error) {
	if len(s) > MaxEncoded {
		return nil, fmt.Errorf("a network of %d bytes as text, at most %d", len(s), MaxEncoded)
	}
	r := &Request{}
	if err := json.Unmarshal([]byte(s), r); err != nil {
		return nil, fmt.Errorf("network of a request: %w", err)
	}
	return r, r.Valid()
}

// Mapping is what OptionMap says.
type Mapping map[netip.Addr]netip.Addr

// ParseMapping reads OLD=NEW,OLD=NEW; empty: nothing is mapped.
func ParseMapping(s string) (Mapping, error) {
	m := Mapping{}
	if s == "" {
		return m, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		old, changed, ok := strings.Cut(part, "=")
		from, err := netip.ParseAddr(strings.TrimSpace(old))
		to, err2 := netip.ParseAddr(strings.TrimSpace(changed))
		if !ok || errors.Join(err, err2) != nil || from.Zone()+to.Zone() != "" {
			return nil, fmt.Errorf("%s: %q is not OLD=NEW of two addresses", OptionMap, part)
		}
		if from, to = from.Unmap(), to.Unmap(); from.Is4() != to.Is4() {
			return nil, fmt.Errorf("%s: %s is not of the same family as %s", OptionMap, to, from)
		}
		if m[from].IsValid() {
			return nil, fmt.Errorf("%s: %s is mapped twice", OptionMap, from)
		}
		m[from] = to
	}
	return m, nil
}

// Of is what an address becomes.
func (m Mapping) Of(a netip.Addr) netip.Addr {
	if to, ok := m[a]; ok {
		return to
	}
	return a
}
