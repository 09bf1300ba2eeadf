// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// group is a multicast group of one interface.
type group struct {
	index   uint32 // of the interface
	address netip.Addr
}

// memberships are the groups that somebody in a network namespace is a member
// of. The kernel lists them by interface only; a socket tells whether it is a
// member of one that it is asked about.
type memberships struct{ groups []group }

// readMemberships reads what the kernel lists for a process's namespace.
func readMemberships(t procfs.Task) (*memberships, error) {
	m := &memberships{}
	for name, parse := range map[string]func(string) ([]group, error){"net/igmp": parseIGMP, "net/igmp6": parseIGMP6} {
		text, err := os.ReadFile(t.Path(name))
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6, or a kernel without multicast
		}
		if err != nil {
			return nil, err
		}
		list, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Path(name), err)
		}
		m.groups = append(m.groups, list...)
	}
	return m, nil
}

var errGroups = errors.New("the kernel's list of multicast groups has an unknown shape")

// parseIGMP reads net/igmp (net/ipv4/igmp.c, igmp_mc_seq_show): a line for each
// interface, then one for each group, whose address is printed as a number of
// this machine's byte order.
func parseIGMP(text string) ([]group, error) {
	var out []group
	index := uint64(0)
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) == 0 {
			continue
		}
		var err error
		if line[0] != '\t' {
			if index, err = strconv.ParseUint(fields[0], 10, 32); err != nil {
				return nil, errGroups
			}
			continue
		}
		n, err := strconv.ParseUint(fields[0], 16, 32)
		if err != nil {
			return nil, errGroups
		}
		out = append(out, group{uint32(index), netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, uint32(n))))})
	}
	return out, nil
}

// parseIGMP6 reads net/igmp6 (net/ipv6/mcast.c, igmp6_mc_seq_show).
func parseIGMP6(text string) ([]group, error) {
	var out []group
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil, errGroups
		}
		index, err := strconv.ParseUint(fields[0], 10, 32)
		address, hexErr := hex.DecodeString(fields[2])
		if err != nil || hexErr != nil || len(address) != 16 {
			return nil, errGroups
		}
		out = append(out, group{uint32(index), netip.AddrFrom16([16]byte(address))})
	}
	return out, nil
}

// of lists the groups that a socket is a member of. It must be called in the
// socket's network namespace, where the interfaces have their names.
func (m *memberships) of(fd int) ([]*state.Membership, error) {
	six, err := inet6Domain(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt(SO_DOMAIN)", err)
	}
	var out []*state.Membership
	for i := range m.groups {
		g := &m.groups[i]
		// A socket of IPv6 may be a member of IPv4's groups, too.
		if g.address.Is6() && !six {
			continue
		}
		member, err := g.membership(fd)
		if err != nil {
			return nil, err
		}
		if member == nil {
			continue
		}
		link, err := net.InterfaceByIndex(int(g.index))
		if err != nil {
			return nil, fmt.Errorf("interface %d of the multicast group %s: %w", g.index, g.address, err)
		}
		member.Interface = link.Name
		out = append(out, member)
	}
	return out, nil
}

// Options of include/uapi/linux/in.h for either family. With mcastMSFilter
// getsockopt(2) tells the sources that a member wants of a group, and fails
// with EADDRNOTAVAIL for all others.
const (
	mcastJoinGroup = 42
	mcastMSFilter  = 48
)

// Offsets in struct group_filter: the interface, the group as a struct
// sockaddr_storage, the mode, the number of sources and these, as the group.
const (
	filterGroup   = 8
	filterMode    = 136
	filterCount   = 140
	filterSources = 144
	storage       = 128
	modeExclude   = 0 // MCAST_EXCLUDE
)

// membership asks a socket about a group; nil if it is not a member.
func (g *group) membership(fd int) (*state.Membership, error) {
	b := make([]byte, filterSources+maxSources*storage)
	ne := binary.NativeEndian
	ne.PutUint32(b, g.index)
	putStorage(b[filterGroup:], g.address.AsSlice())
	ne.PutUint32(b[filterCount:], maxSources)
	n := uint32(len(b))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(levelOf(g.address.AsSlice())), mcastMSFilter, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	switch e {
	case 0:
	case unix.EADDRNOTAVAIL, unix.ENODEV, unix.ENOPROTOOPT:
		return nil, nil // the interface may be gone by now
	default:
		return nil, os.NewSyscallError("getsockopt(MCAST_MSFILTER)", e)
	}
	m := &state.Membership{Group: g.address.AsSlice(), Exclude: ne.Uint32(b[filterMode:]) == modeExclude}
	count := ne.Uint32(b[filterCount:])
	if count > maxSources {
		return nil, &refusal{"member of the multicast group " + g.address.String(), fmt.Sprintf("%d sources are more than are carried", count), ""}
	}
	for i := range int(count) {
		m.Source = append(m.Source, slices.Clone(ofStorage(b[filterSources+i*storage:], len(m.Group))))
	}
	return m, nil
}

func levelOf(group []byte) int {
	if len(group) == 16 {
		return unix.IPPROTO_IPV6
	}
	return unix.IPPROTO_IP
}

// putStorage fills a struct sockaddr_storage with an address; ofStorage reads it.
func putStorage(b, address []byte) {
	if len(address) == 16 {
		binary.NativeEndian.PutUint16(b, unix.AF_INET6)
		copy(b[8:], address)
		return
	}
	binary.NativeEndian.PutUint16(b, unix.AF_INET)
	copy(b[4:], address)
}

func ofStorage(b []byte, size int) []byte {
	if size == 16 {
		return b[8:24]
	}
	return b[4:8]
}

// joinGroups makes the socket a member of the groups that it was a member of,
// by calls of the task. index finds an interface of its network by its name.
func joinGroups(p *target.Plan, fd int, list []*state.Membership, index func(string) (uint32, error)) error {
	for _, m := range list {
		i, err := index(m.Interface)
		if err != nil {
			return fmt.Errorf("multicast group %s: this network has no interface %q: %w", net.IP(m.Group), m.Interface, err)
		}
		b := make([]byte, filterSources+len(m.Source)*storage)
		binary.NativeEndian.PutUint32(b, i)
		putStorage(b[filterGroup:], m.Group)
		level := uint64(levelOf(m.Group))
		p.Call(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), level, mcastJoinGroup, p.Put(b[:filterMode]), filterMode))
		if m.Exclude && len(m.Source) == 0 {
			continue // as it is after joining
		}
		mode := uint32(1) // MCAST_INCLUDE
		if m.Exclude {
			mode = modeExclude
		}
		binary.NativeEndian.PutUint32(b[filterMode:], mode)
		binary.NativeEndian.PutUint32(b[filterCount:], uint32(len(m.Source)))
		for j, s := range m.Source {
			putStorage(b[filterSources+j*storage:], s)
		}
		p.Call(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), level, mcastMSFilter, p.Put(b), uint64(len(b))))
	}
	return nil
}
