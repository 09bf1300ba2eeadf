// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
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

// of finds the first group that a socket is a member of, nil if there is none.
func (m *memberships) of(fd int) (*group, error) {
	six, err := inet6Domain(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt(SO_DOMAIN)", err)
	}
	for i := range m.groups {
		g := &m.groups[i]
		// A socket of IPv6 may be a member of IPv4's groups, too.
		if g.address.Is6() && !six {
			continue
		}
		member, err := g.has(fd)
		if err != nil {
			return nil, err
		}
		if member {
			return g, nil
		}
	}
	return nil, nil
}

// mcastMSFilter is MCAST_MSFILTER of include/uapi/linux/in.h: with it
// getsockopt(2) tells the sources that a member wants of a group, and fails
// with EADDRNOTAVAIL for all others.
const mcastMSFilter = 48

// has asks a socket about a group. It fills struct group_filter: the interface,
// the group as a struct sockaddr_storage, room for no source.
func (g *group) has(fd int) (bool, error) {
	var b [144]byte
	ne := binary.NativeEndian
	ne.PutUint32(b[:], g.index)
	level := unix.IPPROTO_IP
	if address := b[8:]; g.address.Is6() {
		level = unix.IPPROTO_IPV6
		ne.PutUint16(address, unix.AF_INET6)
		copy(address[8:], g.address.AsSlice())
	} else {
		ne.PutUint16(address, unix.AF_INET)
		copy(address[4:], g.address.AsSlice())
	}
	n := uint32(len(b))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), mcastMSFilter, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	switch e {
	case 0:
		return true, nil
	case unix.EADDRNOTAVAIL, unix.ENODEV, unix.ENOPROTOOPT:
		return false, nil // the interface may be gone by now
	}
	return false, os.NewSyscallError("getsockopt(MCAST_MSFILTER)", e)
}
