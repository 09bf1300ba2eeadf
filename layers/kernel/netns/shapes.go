// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Category is one kind of message that travels as the kernel has it.
type Category int

// The categories, in the order in which they are made.
const (
	Addresses Category = iota
	Routes
	Rules
	Neighbours
	Disciplines
	Classes
	categories
)

func (c Category) String() string {
	return [...]string{"address", "route", "rule", "neighbour", "queueing discipline", "class"}[c]
}

// shape is what is kept of a category's messages.
type shape struct {
	get, add, del uint16
	// header is the size of the fixed part.
	header int
	// index is where that has the number of an interface; 0: nowhere.
	index int
	// keep are the attributes that travel, links those whose value is the number
	// of an interface, loose those that do not tell one from another.
	keep, links, loose []uint16
	// clean clears what the kernel reports of the fixed part, and adds what it
	// reports elsewhere than it takes it. skip: the message is not to be made.
	clean func(fixed []byte, list []attribute) (more []attribute, skip bool)
}

// Attributes that golang.org/x/sys does not name, of fib_rules.h, rtnetlink.h
// and if_addr.h.
const (
	fraSuppressIfgroup = 13
	fraL3mdev          = 19
	fraDSCP            = 25
	rtaPref            = 20
	rtaEncap           = 22
	rtaExpires         = 23
	rtaTTLPropagate    = 26
	ifaRtPriority      = 9
	ndaProtocol        = 12
	tcaStab            = 8
)

var shapes = [categories]shape{
	Addresses: {
		get: unix.RTM_GETADDR, add: unix.RTM_NEWADDR, del: unix.RTM_DELADDR, header: unix.SizeofIfAddrmsg, index: 4,
		keep: []uint16{unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_LABEL, unix.IFA_BROADCAST, unix.IFA_CACHEINFO, unix.IFA_FLAGS, ifaRtPriority},
		// Lifetimes count down all the time.
		loose: []uint16{unix.IFA_CACHEINFO}, clean: cleanAddress,
	},
	Routes: {
		get: unix.RTM_GETROUTE, add: unix.RTM_NEWROUTE, del: unix.RTM_DELROUTE, header: unix.SizeofRtMsg,
		keep: []uint16{
			unix.RTA_DST, unix.RTA_SRC, unix.RTA_IIF, unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_PRIORITY, unix.RTA_PREFSRC, unix.RTA_METRICS,
			unix.RTA_MULTIPATH, unix.RTA_FLOW, unix.RTA_TABLE, unix.RTA_MARK, unix.RTA_VIA, rtaPref, rtaExpires, rtaTTLPropagate,
		},
		links: []uint16{unix.RTA_OIF, unix.RTA_IIF}, loose: []uint16{rtaExpires}, clean: cleanRoute,
	},
	Rules: {
		get: unix.RTM_GETRULE, add: unix.RTM_NEWRULE, del: unix.RTM_DELRULE, header: 12,
		keep: []uint16{1, 2, 3, 4, 6, 10, 11, 12, fraSuppressIfgroup, 14, 15, 16, 17, fraL3mdev, 20, 21, 22, 23, 24, fraDSCP},
		clean: func(fixed []byte, _ []attribute) ([]attribute, bool) {
			const invert = 2 // FIB_RULE_INVERT: the others are reports
			binary.NativeEndian.PutUint32(fixed[8:], binary.NativeEndian.Uint32(fixed[8:])&invert)
			return nil, !internet(fixed[0])
		},
	},
	Neighbours: {
		get: unix.RTM_GETNEIGH, add: unix.RTM_NEWNEIGH, del: unix.RTM_DELNEIGH, header: unix.SizeofNdMsg, index: 4,
		keep: []uint16{unix.NDA_DST, unix.NDA_LLADDR, ndaProtocol}, clean: cleanNeighbour,
	},
	Disciplines: {
		get: unix.RTM_GETQDISC, add: unix.RTM_NEWQDISC, del: unix.RTM_DELQDISC, header: 20, index: 4,
		keep: []uint16{unix.TCA_KIND, unix.TCA_OPTIONS, tcaStab},
		clean: func(fixed []byte, list []attribute) ([]attribute, bool) {
			clear(fixed[16:]) // how many use it
			cleanHTB(list)
			// Those that the kernel makes by itself have no handle.
			return nil, binary.NativeEndian.Uint32(fixed[8:]) == 0
		},
	},
	Classes: {
		get: unix.RTM_GETTCLASS, add: unix.RTM_NEWTCLASS, del: unix.RTM_DELTCLASS, header: 20, index: 4,
		keep: []uint16{unix.TCA_KIND, unix.TCA_OPTIONS},
		clean: func(fixed []byte, list []attribute) ([]attribute, bool) {
			clear(fixed[16:])
			cleanHTB(list)
			return nil, false
		},
	},
}

// cleanHTB: the kernel reports more of the version than it takes, and counts and
// finds out in the same structs (tc_htb_glob and tc_htb_opt of pkt_sched.h,
// htb_init and htb_dump of net/sched/sch_htb.c).
func cleanHTB(list []attribute) {
	const (
		parms, level = 1, 36 // TCA_HTB_PARMS
		glob, counts = 2, 16 // TCA_HTB_INIT
		version      = 16    // bits
	)
	if text(list, unix.TCA_KIND) != "htb" {
		return
	}
	options, err := parse(find(list, unix.TCA_OPTIONS))
	if err != nil {
		return // the kernel will not take it
	}
	if v := find(options, glob); len(v) == counts+4 {
		if n := binary.NativeEndian.Uint32(v); n>>version != 0 {
			binary.NativeEndian.PutUint32(v, n>>version)
		}
		clear(v[counts:])
	}
	if v := find(options, parms); len(v) == level+8 {
		clear(v[level : level+4])
	}
}

func internet(family byte) bool { return family == unix.AF_INET || family == unix.AF_INET6 }

// Of if_addr.h: what duplicate address detection and the order of addresses
// bring about, or the kernel for itself.
const addressReports = unix.IFA_F_SECONDARY | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE |
	unix.IFA_F_PERMANENT | unix.IFA_F_STABLE_PRIVACY | unix.IFA_F_OPTIMISTIC

func cleanAddress(fixed []byte, list []attribute) ([]attribute, bool) {
	flags := uint32(fixed[2])
	if v := find(list, unix.IFA_FLAGS); len(v) == 4 {
		flags = binary.NativeEndian.Uint32(v)
	}
	flags &^= addressReports
	fixed[2] = byte(flags)
	for _, a := range list {
		if a.plain() == unix.IFA_FLAGS && len(a.value) == 4 {
			binary.NativeEndian.PutUint32(a.value, flags)
		}
	}
	return nil, !internet(fixed[0])
}

// Of rtnetlink.h.
const (
	routeCloned = 0x200 // RTM_F_CLONED
	nexthopKept = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE
	tablesLocal = unix.RT_TABLE_LOCAL
)

func cleanRoute(fixed []byte, list []attribute) (more []attribute, skip bool) {
	flags := binary.NativeEndian.Uint32(fixed[8:])
	// What the kernel makes for an address, in the table of local ones, comes with
	// the address.
	automatic := fixed[5] == unix.RTPROT_KERNEL && (table(fixed, list) == tablesLocal || fixed[7] == unix.RTN_UNREACHABLE)
	if !internet(fixed[0]) || flags&routeCloned != 0 || automatic {
		return nil, true
	}
	binary.NativeEndian.PutUint32(fixed[8:], flags&nexthopKept)
	for _, a := range list {
		if a.plain() != unix.RTA_MULTIPATH {
			continue
		}
		if eachNexthop(a.value, cleanNexthop) != nil {
			return nil, true
		}
	}
	if find(list, rtaEncap) != nil {
		return nil, true
	}
	// struct rta_cacheinfo: the third number is the rest of its life, in ticks of
	// 10 ms (USER_HZ).
	if v := find(list, unix.RTA_CACHEINFO); fixed[0] == unix.AF_INET6 && len(v) >= 12 && find(list, rtaExpires) == nil {
		if ticks := int32(binary.NativeEndian.Uint32(v[8:])); ticks > 0 {
			more = append(more, attribute{rtaExpires, binary.NativeEndian.AppendUint32(nil, uint32(ticks/100))})
		}
	}
	return more, false
}

// table is a route's.
func table(fixed []byte, list []attribute) uint32 {
	if n := number(list, unix.RTA_TABLE); n != 0 {
		return n
	}
	return uint32(fixed[4])
}

// nexthopSize is that of struct rtnexthop: length, flags, hops, number of an
// interface.
const nexthopSize = 8

// eachNexthop calls fn with each struct rtnexthop of RTA_MULTIPATH and its
// attributes.
func eachNexthop(b []byte, fn func(hop []byte) error) error {
	for len(b) > 0 {
		if len(b) < nexthopSize {
			return errShape
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < nexthopSize || size > len(b) {
			return errShape
		}
		if err := fn(b[:size]); err != nil {
			return err
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

var errEncapsulated = errors.New("a route that encapsulates")

func cleanNexthop(hop []byte) error {
	hop[2] &= nexthopKept
	list, err := parse(hop[nexthopSize:])
	if err == nil && find(list, rtaEncap) != nil {
		err = errEncapsulated
	}
	return err
}

// Of neighbour.h.
const (
	neighbourUsable = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE
	neighbourFlags  = unix.NTF_PROXY | unix.NTF_ROUTER
)

// cleanNeighbour: one that the kernel has found may be asked again, but is
// believed until it has answered: the first packet need not wait.
func cleanNeighbour(fixed []byte, list []attribute) ([]attribute, bool) {
	state := binary.NativeEndian.Uint16(fixed[8:])
	proxy := fixed[10]&unix.NTF_PROXY != 0
	switch {
	case proxy:
		state = 0
	case len(find(list, unix.NDA_LLADDR)) == 0:
		return nil, true
	case state&unix.NUD_PERMANENT != 0:
		state = unix.NUD_PERMANENT
	case state&neighbourUsable != 0:
		state = unix.NUD_STALE
	default:
		return nil, true
	}
	binary.NativeEndian.PutUint16(fixed[8:], state)
	fixed[10] &= neighbourFlags
	fixed[11] = 0 // the type is the kernel's
	return nil, !internet(fixed[0])
}

// trim cuts a message down to its shape. The result is a copy; nil: it is not to
// be made.
func (s *shape) trim(body []byte) ([]byte, error) {
	body = append([]byte(nil), body...)
	fixed, list, err := split(body, s.header)
	if err != nil {
		return nil, err
	}
	more, skip := s.clean(fixed, list)
	if skip {
		return nil, nil
	}
	out := append([]byte(nil), fixed...)
	for _, a := range append(list, more...) {
		for _, k := range s.keep {
			if a.plain() == k {
				out = put(out, a.kind, a.value)
			}
		}
	}
	return out, nil
}

// key is what tells a message from others.
func (s *shape) key(body []byte) string {
	fixed, list, err := split(body, s.header)
	if err != nil {
		return string(body)
	}
	out := append([]byte(nil), fixed...)
next:
	for _, a := range list {
		for _, k := range s.loose {
			if a.plain() == k {
				continue next
			}
		}
		out = put(out, a.kind, a.value)
	}
	return string(out)
}

// eachIndex calls fn with every place of a message, as trim returns it, that
// holds the number of an interface.
func (s *shape) eachIndex(body []byte, fn func(place []byte) error) error {
	fixed, list, err := split(body, s.header)
	if err != nil {
		return err
	}
	if s.index != 0 {
		if err := fn(fixed[s.index : s.index+4]); err != nil {
			return err
		}
	}
	for _, a := range list {
		for _, k := range s.links {
			if a.plain() != k {
				continue
			}
			if len(a.value) != 4 {
				return fmt.Errorf("netlink: the number of an interface in %d bytes", len(a.value))
			}
			if err := fn(a.value); err != nil {
				return err
			}
		}
		if a.plain() == unix.RTA_MULTIPATH && s.add == unix.RTM_NEWROUTE {
			if err := eachNexthop(a.value, func(hop []byte) error { return fn(hop[4:8]) }); err != nil {
				return err
			}
		}
	}
	return nil
}
