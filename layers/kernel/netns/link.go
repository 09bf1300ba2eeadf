// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Kinds of interfaces that are made.
const (
	KindVeth     = "veth"
	KindMacvlan  = "macvlan"
	KindDummy    = "dummy"
	KindLoopback = "loopback" // every namespace has its own: it is not made
	KindCNI      = "cni"      // whatever a CNI plug-in makes
)

// Link is an interface.
type Link struct {
	// Index is the kernel's number for it, Name its name in the namespace.
	Index int
	Name  string
	// Kind is that of its driver, empty for a device of the machine.
	Kind    string
	Alias   string
	MTU     uint32
	Address net.HardwareAddr
	// Flags are IFF_* of netdevice(7).
	Flags uint32
	// TxQueue is the length of its queue in packets, Group its group.
	TxQueue, Group uint32
	// Mode and ModeFlags are MACVLAN_MODE_* and MACVLAN_FLAG_* of if_link.h.
	Mode, ModeFlags uint32
	// Other is the number of the other end of a veth, or of the interface that a
	// macvlan is on, in the namespace that this one knows as OtherNS; -1: in this.
	Other, OtherNS int
	// Master is the number of the bridge that it is a port of, or 0.
	Master int
}

// Loopback reports whether it is lo.
func (l *Link) Loopback() bool { return l.Flags&unix.IFF_LOOPBACK != 0 }

// Up reports whether somebody has set it up.
func (l *Link) Up() bool { return l.Flags&unix.IFF_UP != 0 }

// flagsKept are those that a person sets (ip-link(8)); the kernel finds out the
// others.
const flagsKept = unix.IFF_UP | unix.IFF_NOARP | unix.IFF_ALLMULTI | unix.IFF_PROMISC | unix.IFF_MULTICAST | unix.IFF_DYNAMIC

// Of if_link.h.
const (
	macvlanMode  = 1 // IFLA_MACVLAN_MODE
	macvlanFlags = 2 // IFLA_MACVLAN_FLAGS
	vethInfoPeer = 1 // VETH_INFO_PEER
)

// Links are all interfaces of the namespace.
func (h *Handle) Links() ([]Link, error) {
	list, err := h.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var out []Link
	for _, b := range list {
		l, err := parseLink(b)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// Link finds an interface by its name. Without one the error is ENODEV.
func (h *Handle) Link(name string) (Link, error) {
	return h.oneLink(putString(ifinfo(0, 0, 0), unix.IFLA_IFNAME, name), name)
}

// LinkByIndex finds an interface by its number.
func (h *Handle) LinkByIndex(index int) (Link, error) {
	return h.oneLink(ifinfo(index, 0, 0), fmt.Sprint("number ", index))
}

func (h *Handle) oneLink(body []byte, what string) (Link, error) {
	b, err := h.ask(unix.RTM_GETLINK, body)
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: %w", what, err)
	}
	return parseLink(b)
}

func parseLink(b []byte) (Link, error) {
	fixed, list, err := split(b, unix.SizeofIfInfomsg)
	if err != nil {
		return Link{}, err
	}
	l := Link{
		Index: int(int32(binary.NativeEndian.Uint32(fixed[4:]))), Flags: binary.NativeEndian.Uint32(fixed[8:]),
		Name: text(list, unix.IFLA_IFNAME), Alias: text(list, unix.IFLA_IFALIAS), MTU: number(list, unix.IFLA_MTU),
		Address: find(list, unix.IFLA_ADDRESS), TxQueue: number(list, unix.IFLA_TXQLEN), Group: number(list, unix.IFLA_GROUP),
		Other: int(number(list, unix.IFLA_LINK)), OtherNS: -1, Master: int(number(list, unix.IFLA_MASTER)),
	}
	if v := find(list, unix.IFLA_LINK_NETNSID); len(v) == 4 {
		l.OtherNS = int(int32(binary.NativeEndian.Uint32(v)))
	}
	info, err := parse(find(list, unix.IFLA_LINKINFO))
	if err != nil {
		return Link{}, err
	}
	l.Kind = text(info, unix.IFLA_INFO_KIND)
	switch {
	case l.Loopback():
		l.Kind = KindLoopback
	case l.Kind == KindMacvlan:
		data, err := parse(find(info, unix.IFLA_INFO_DATA))
		if err != nil {
			return Link{}, err
		}
		l.Mode = number(data, macvlanMode)
		if v := find(data, macvlanFlags); len(v) == 2 {
			l.ModeFlags = uint32(binary.NativeEndian.Uint16(v))
		}
	}
	return l, nil
}

// ifinfo is struct ifinfomsg.
func ifinfo(index int, flags, change uint32) []byte {
	b := make([]byte, 4, 64)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// MakeVeth makes a pair: l in the namespace inside, with its number, name,
// address, MTU, alias, queue and group, and another end in the handle's. Both are
// down.
func (h *Handle) MakeVeth(inside *os.File, l *Link, outer string) error {
	peer := putString(ifinfo(0, 0, 0), unix.IFLA_IFNAME, outer)
	if l.MTU != 0 {
		peer = putNumber(peer, unix.IFLA_MTU, l.MTU)
	}
	return h.makeLink(inside, l, nil, put(nil, vethInfoPeer|unix.NLA_F_NESTED, peer))
}

// MakeMacvlan makes an interface in the namespace inside on one of the handle's.
func (h *Handle) MakeMacvlan(inside *os.File, l *Link, parent int) error {
	data := putNumber(nil, macvlanMode, l.Mode)
	if l.ModeFlags != 0 {
		data = put(data, macvlanFlags, binary.NativeEndian.AppendUint16(nil, uint16(l.ModeFlags)))
	}
	return h.makeLink(inside, l, putNumber(nil, unix.IFLA_LINK, uint32(parent)), data)
}

// MakeDummy makes one in the namespace inside.
func (h *Handle) MakeDummy(inside *os.File, l *Link) error { return h.makeLink(inside, l, nil, nil) }

func (h *Handle) makeLink(inside *os.File, l *Link, extra, data []byte) error {
	b := putString(ifinfo(l.Index, 0, 0), unix.IFLA_IFNAME, l.Name)
	b = putNumber(b, unix.IFLA_NET_NS_FD, uint32(inside.Fd()))
	b = append(b, l.settings()...)
	b = append(b, extra...)
	info := putString(nil, unix.IFLA_INFO_KIND, l.Kind)
	if data != nil {
		info = put(info, unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, data)
	}
	b = put(b, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info)
	if err := h.do(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, b); err != nil {
		return fmt.Errorf("make interface %s of kind %s: %w", l.Name, l.Kind, err)
	}
	return nil
}

// settings are the attributes that can be set of any interface.
func (l *Link) settings() (b []byte) {
	if l.MTU != 0 {
		b = putNumber(b, unix.IFLA_MTU, l.MTU)
	}
	if len(l.Address) > 0 && !l.Loopback() {
		b = put(b, unix.IFLA_ADDRESS, l.Address)
	}
	if l.Alias != "" {
		b = put(b, unix.IFLA_IFALIAS, []byte(l.Alias))
	}
	return putNumber(putNumber(b, unix.IFLA_TXQLEN, l.TxQueue), unix.IFLA_GROUP, l.Group)
}

// Configure gives an interface of the handle's namespace, index, what can be set
// of it, but neither its address nor whether it is up.
func (h *Handle) Configure(index int, l *Link) error {
	c := *l
	c.Address = nil
	const change = flagsKept &^ unix.IFF_UP
	if err := h.do(unix.RTM_NEWLINK, 0, append(ifinfo(index, l.Flags&change, change), c.settings()...)); err != nil {
		return fmt.Errorf("set up interface %s: %w", l.Name, err)
	}
	return nil
}

// SetUp sets an interface up or down.
func (h *Handle) SetUp(index int, up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	return h.do(unix.RTM_NEWLINK, 0, ifinfo(index, flags, unix.IFF_UP))
}

// SetMaster makes an interface a port of a bridge; 0: of none.
func (h *Handle) SetMaster(index, bridge int) error {
	return h.do(unix.RTM_NEWLINK, 0, putNumber(ifinfo(index, 0, 0), unix.IFLA_MASTER, uint32(bridge)))
}

// SetAlias gives an interface a text for people (ip link set ... alias).
func (h *Handle) SetAlias(index int, alias string) error {
	return h.do(unix.RTM_NEWLINK, 0, put(ifinfo(index, 0, 0), unix.IFLA_IFALIAS, []byte(alias)))
}

// SetAddress changes the hardware address.
func (h *Handle) SetAddress(index int, a net.HardwareAddr) error {
	return h.do(unix.RTM_NEWLINK, 0, put(ifinfo(index, 0, 0), unix.IFLA_ADDRESS, a))
}

// Delete removes an interface, if there is one.
func (h *Handle) Delete(index int) error {
	err := h.do(unix.RTM_DELLINK, 0, ifinfo(index, 0, 0))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// FreeName is a name that no interface of the namespace has: the wanted one if
// that is free.
func (h *Handle) FreeName(wanted string) (string, error) {
	list, err := h.Links()
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, l := range list {
		taken[l.Name] = true
	}
	for n := 0; taken[wanted] || wanted == ""; n++ {
		wanted = fmt.Sprintf("mig%d", n)
	}
	return wanted, nil
}

// NamespaceOf is the number by which the handle's namespace knows another, -1 if
// it knows it by none.
func (h *Handle) NamespaceOf(ns *os.File) (int, error) {
	b := putNumber(make([]byte, 4), unix.NETNSA_FD, uint32(ns.Fd())) // struct rtgenmsg
	answer, err := h.ask(unix.RTM_GETNSID, b)
	if err != nil {
		return 0, fmt.Errorf("number of a network namespace: %w", err)
	}
	_, list, err := split(answer, 4)
	if err != nil {
		return 0, err
	}
	if v := find(list, unix.NETNSA_NSID); len(v) == 4 {
		return int(int32(binary.NativeEndian.Uint32(v))), nil
	}
	return -1, nil
}
