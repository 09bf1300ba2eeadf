// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FilterTable is a table of the iptables that are older than nf_tables, as the
// kernel's sockets give and take it (include/uapi/linux/netfilter_ipv4/ip_tables.h
// and ip6_tables.h): the rules of one block, with what their extensions were told.
type FilterTable struct {
	// Family is AF_INET or AF_INET6.
	Family int
	// Name is filter, nat, mangle, raw or security.
	Name             string
	Hooks            uint32
	Entries          uint32
	Entry, Underflow [5]uint32
	Content          []byte
}

// Of ip_tables.h; ip6_tables.h has the same numbers.
const (
	xtReplace    = 64 // IPT_SO_SET_REPLACE
	xtInfo       = 64 // IPT_SO_GET_INFO
	xtEntries    = 65 // IPT_SO_GET_ENTRIES
	xtName       = 32 // XT_TABLE_MAXNAMELEN
	xtInfoSize   = xtName + 4 + 2*5*4 + 2*4
	xtGetHead    = xtName + 8 // with what aligns the entries
	xtSetHead    = xtName + 3*4 + 2*5*4 + 4 + 8
	xtCounter    = 16 // struct xt_counters
	maxXtContent = 8 << 20
)

// level is the one of a family's socket options.
func (t *FilterTable) level() int {
	if t.Family == unix.AF_INET6 {
		return unix.IPPROTO_IPV6
	}
	return unix.IPPROTO_IP
}

// socket is one of the calling thread's namespace.
func (t *FilterTable) socket() (int, error) {
	fd, err := unix.Socket(t.Family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	return fd, os.NewSyscallError("socket(SOCK_RAW)", err)
}

// FilterTables are those that the calling thread's namespace has.
func FilterTables() (out []FilterTable, err error) {
	for family, file := range map[int]string{unix.AF_INET: "ip_tables_names", unix.AF_INET6: "ip6_tables_names"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for name := range strings.FieldsSeq(string(b)) {
			t := FilterTable{Family: family, Name: name}
			if err := t.read(); err != nil {
				return nil, fmt.Errorf("iptables: table %s: %w", name, err)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

func (t *FilterTable) read() error {
	fd, err := t.socket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	size, err := t.info(fd)
	if err != nil {
		return err
	}
	if size > maxXtContent {
		return fmt.Errorf("%d bytes of rules, at most %d are carried", size, maxXtContent)
	}
	b := make([]byte, xtGetHead+int(size))
	copy(b, t.Name)
	binary.NativeEndian.PutUint32(b[xtName:], size)
	if err := getsockopt(fd, t.level(), xtEntries, b); err != nil {
		return err
	}
	t.Content = b[xtGetHead:]
	return nil
}

// info asks for everything but the rules, and returns how many bytes they have.
func (t *FilterTable) info(fd int) (size uint32, err error) {
	b := make([]byte, xtInfoSize)
	copy(b, t.Name)
	if err := getsockopt(fd, t.level(), xtInfo, b); err != nil {
		return 0, err
	}
	n := func(i int) uint32 { return binary.NativeEndian.Uint32(b[xtName+4*i:]) }
	t.Hooks = n(0)
	for i := range t.Entry {
		t.Entry[i], t.Underflow[i] = n(1+i), n(6+i)
	}
	t.Entries = n(11)
	return n(12), nil
}

// Make puts the rules into the calling thread's namespace, in the place of those
// that the table has.
func (t *FilterTable) Make() error {
	if t.Family != unix.AF_INET && t.Family != unix.AF_INET6 || len(t.Name) == 0 || len(t.Name) >= xtName || len(t.Content) > maxXtContent {
		return fmt.Errorf("iptables: %.40q of family %d with %d bytes is no table", t.Name, t.Family, len(t.Content))
	}
	fd, err := t.socket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old := FilterTable{Family: t.Family, Name: t.Name}
	if _, err := old.info(fd); err != nil {
		return fmt.Errorf("iptables: table %s of this kernel: %w", t.Name, err)
	}
	// The kernel gives back the counters of the rules that go.
	counters := make([]byte, max(1, int(old.Entries))*xtCounter)
	b := make([]byte, xtName, xtSetHead+len(t.Content))
	copy(b, t.Name)
	for _, n := range []uint32{t.Hooks, t.Entries, uint32(len(t.Content))} {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	for _, list := range [][5]uint32{t.Entry, t.Underflow} {
		for _, n := range list {
			b = binary.NativeEndian.AppendUint32(b, n)
		}
	}
	b = binary.NativeEndian.AppendUint32(b, old.Entries)
	b = binary.NativeEndian.AppendUint64(b, uint64(uintptr(unsafe.Pointer(&counters[0]))))
	b = append(b, t.Content...)
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(t.level()), xtReplace, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	runtime.KeepAlive(counters)
	if e != 0 {
		return fmt.Errorf("iptables: set table %s: %w", t.Name, os.NewSyscallError("setsockopt(SO_SET_REPLACE)", e))
	}
	return nil
}

func getsockopt(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return os.NewSyscallError("getsockopt", e)
	}
	return nil
}
