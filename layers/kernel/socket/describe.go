// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// getter reads one socket through a duplicate of its descriptor. It only asks:
// SO_ERROR, which is cleared by reading, is left alone.
type getter struct {
	*network
	fd int
	p  *target.Process
	d  *target.Descriptor
	// deaf: the filter is ours (tcprepair.Deafen).
	deaf bool
}

// socketFlags are the flags that a socket's description can have.
const socketFlags = unix.O_ACCMODE | unix.O_NONBLOCK

// describe makes the message.
func (g *getter) describe(how state.SocketState) (*state.Socket, error) {
	msg := &state.Socket{State: how, Flags: uint32(g.d.Flags & socketFlags)}
	for _, o := range []struct {
		name int
		to   *uint32
	}{{unix.SO_DOMAIN, &msg.Family}, {unix.SO_TYPE, &msg.Type}, {unix.SO_PROTOCOL, &msg.Protocol}} {
		n, err := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, o.name)
		if err != nil {
			return nil, os.NewSyscallError("getsockopt", err)
		}
		*o.to = uint32(n)
	}
	var err error
	if msg.Uid, msg.Gid, err = target.Owner(g.p.Proc, &g.d.Stat); err != nil {
		return nil, err
	}
	if how == state.SocketState_SOCKET_STATE_CLOSED {
		return msg, nil
	}
	if err := g.hidden(msg); err != nil {
		return nil, err
	}
	if err := g.addresses(msg); err != nil {
		return nil, err
	}
	switch msg.Family {
	case unix.AF_UNIX:
		err = g.unixState(msg)
	case unix.AF_NETLINK:
		msg.Group, err = g.netlinkGroups()
	case unix.AF_PACKET:
		err = g.packetState(msg)
	default:
		err = g.inetState(msg)
	}
	if err != nil {
		return nil, err
	}
	msg.Option, err = g.options(msg)
	return msg, err
}

// hasFilter tells of a packet filter, classic or not.
func hasFilter(fd int) bool {
	var n uint32
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soGetFilter, 0, uintptr(unsafe.Pointer(&n)), 0)
	return e == 0 && n > 0 || e == unix.EACCES
}

// hidden reads what is neither an option nor an address: the packet filter, how
// far a program has peeked, and multicast groups.
func (g *getter) hidden(msg *state.Socket) (err error) {
	if off, err := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, soPeekOff); err == nil && off >= 0 {
		msg.PeekOffset = uint32(off) + 1
	}
	if !g.deaf {
		if msg.Filter, err = filterOf(g.fd); err != nil {
			return err
		}
		msg.FilterLocked = len(msg.Filter) > 0 && g.flag(unix.SO_LOCK_FILTER)
	}
	if msg.Family != unix.AF_INET && msg.Family != unix.AF_INET6 || msg.Type == unix.SOCK_STREAM {
		return nil
	}
	if g.groups == nil {
		if g.groups, err = readMemberships(g.p.Proc); err != nil {
			return err
		}
	}
	return target.InNamespace(g.p.Proc.Path("ns/net"), func() error { msg.Membership, err = g.groups.of(g.fd); return err })
}

// filterOf copies a classic packet filter (SO_GET_FILTER, Linux 3.8).
func filterOf(fd int) ([]byte, error) {
	var n uint32
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soGetFilter, 0, uintptr(unsafe.Pointer(&n)), 0)
	switch {
	case e == unix.EACCES:
		return nil, &refusal{"socket", "it has an extended packet filter (SO_ATTACH_BPF), which the kernel does not give away", "detach it before the checkpoint"}
	case e != 0 || n == 0:
		return nil, nil
	}
	b := make([]byte, 8*n)
	_, _, e = unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soGetFilter, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 || int(n)*8 != len(b) {
		return nil, fmt.Errorf("getsockopt(SO_GET_FILTER): %d instructions: %w", n, e)
	}
	return b, nil
}

func (g *getter) flag(name int) bool {
	n, err := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, name)
	return err == nil && n != 0
}

// address calls getsockname(2) or getpeername(2) and drops sa_family.
func (g *getter) address(nr uintptr) ([]byte, error) {
	var b [128]byte
	n := uint32(len(b))
	_, _, e := unix.Syscall(nr, uintptr(g.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)))
	if e == unix.ENOTCONN {
		return nil, nil
	}
	if e != 0 {
		return nil, os.NewSyscallError("getsockname or getpeername", e)
	}
	if n <= 2 || int(n) > len(b) {
		return nil, nil
	}
	return b[2:n], nil
}

// addresses fills in the names that are bound and connected to.
func (g *getter) addresses(msg *state.Socket) error {
	local, err := g.address(unix.SYS_GETSOCKNAME)
	if err != nil {
		return err
	}
	switch {
	case msg.Family == unix.AF_PACKET: // see packetState
	case msg.State == state.SocketState_SOCKET_STATE_PAIR && msg.Type == unix.SOCK_DGRAM:
	case msg.Family == unix.AF_INET || msg.Family == unix.AF_INET6:
		if len(local) >= 2 && local[0]|local[1] != 0 { // the port
			msg.Local = local
		}
	case msg.Family == unix.AF_NETLINK:
		if len(local) >= 10 && !bytes.Equal(local[2:6], make([]byte, 4)) {
			msg.Local = local
		}
	default:
		msg.Local = local
	}
	udp := msg.Type != unix.SOCK_STREAM && (msg.Family == unix.AF_INET || msg.Family == unix.AF_INET6)
	if !udp && !hasRemote(msg.State) {
		return nil
	}
	if msg.Remote, err = g.address(unix.SYS_GETPEERNAME); err != nil {
		return err
	}
	if len(msg.Remote) == 0 && msg.State == state.SocketState_SOCKET_STATE_CONNECTING {
		msg.Remote, err = g.target(msg.Family)
		return err
	}
	if len(msg.Remote) == 0 && udp && !isUDP(msg) {
		if msg.Remote, err = withoutPort(g.p.Proc, g.d.Link.Inode, msg.Family); err != nil {
			return err
		}
	}
	if udp && len(msg.Remote) > 0 {
		msg.State = state.SocketState_SOCKET_STATE_CONNECTED
	}
	return nil
}

// target is where a socket connects to, as the address behind sa_family.
func (g *getter) target(family uint32) ([]byte, error) {
	var found *inetSocket
	err := target.InNamespace(g.p.Proc.Path("ns/net"), func() (err error) { found, err = findConnecting(uint32(g.d.Link.Inode)); return err })
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, &refusal{"TCP socket", "it was connecting a moment ago", again}
	}
	return inetAddress(family, found.remote), nil
}

// inetAddress is an address behind sa_family.
func inetAddress(family uint32, to netip.AddrPort) []byte {
	port := binary.BigEndian.AppendUint16(nil, to.Port())
	if family == unix.AF_INET {
		return append(append(port, to.Addr().AsSlice()...), make([]byte, 8)...)
	}
	// sin6_port, _flowinfo, _addr, _scope_id.
	a := to.Addr().As16()
	return append(append(append(port, 0, 0, 0, 0), a[:]...), 0, 0, 0, 0)
}

// withoutPort is the address that a raw or a ping socket is connected to, behind
// sa_family: it has no port, and so getpeername(2) does not tell it.
func withoutPort(t procfs.Task, inode uint64, family uint32) ([]byte, error) {
	for _, name := range []string{"raw", "raw6", "icmp", "icmp6"} {
		list, err := t.Inet(name)
		if procfs.IsGone(err) {
			continue // no IPv6
		}
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			if s.Inode == inode && s.Remote.IsValid() && !s.Remote.Addr().IsUnspecified() {
				return inetAddress(family, s.Remote), nil
			}
		}
	}
	return nil, nil
}

// hasRemote: sockets of these states are connected to an address.
func hasRemote(s state.SocketState) bool {
	switch s {
	case state.SocketState_SOCKET_STATE_CONNECTED, state.SocketState_SOCKET_STATE_CONNECTION, state.SocketState_SOCKET_STATE_CONNECTING:
		return true
	}
	return false
}

// inetState tells a TCP socket that was never connected from one whose
// connection has ended.
func (g *getter) inetState(msg *state.Socket) error {
	if msg.Type != unix.SOCK_STREAM || hasRemote(msg.State) {
		return nil
	}
	if msg.State == state.SocketState_SOCKET_STATE_LISTENING {
		info, err := unix.GetsockoptTCPInfo(g.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return os.NewSyscallError("getsockopt(TCP_INFO)", err)
		}
		msg.Backlog = info.Sacked // of a listener: sk_max_ack_backlog (net/ipv4/tcp.c, tcp_get_info)
		return nil
	}
	p := []unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLRDHUP}}
	if _, err := unix.Poll(p, 0); err != nil {
		return os.NewSyscallError("poll", err)
	}
	if p[0].Revents&unix.POLLRDHUP != 0 {
		msg.State, msg.Local = state.SocketState_SOCKET_STATE_CLOSED, nil
	}
	return nil
}

func (g *getter) unixState(msg *state.Socket) error {
	u := g.unix[uint32(g.d.Link.Inode)]
	msg.Shutdown = uint32(u.shutdown)
	if msg.State == state.SocketState_SOCKET_STATE_LISTENING {
		msg.Backlog = u.backlog
	}
	if len(msg.Local) == 0 || msg.Local[0] == 0 {
		return nil
	}
	var err error
	msg.File, err = g.file(u, strings.TrimRight(string(msg.Local), "\x00"))
	if err == nil && msg.File.Unlinked && len(u.pending) > 0 {
		return &refusal{"unix socket " + printable(u.name), "connections wait to be accepted, and its name, by which they would be made anew, leads to it no longer", again}
	}
	return err
}

// file finds out what the name in the file system leads to.
func (g *getter) file(u *unixSocket, name string) (*state.SocketFile, error) {
	out := &state.SocketFile{}
	path := name
	if !strings.HasPrefix(name, "/") {
		cwd, err := g.p.Proc.Cwd()
		if err != nil {
			return nil, err
		}
		out.Directory, path = cwd.Path, cwd.Path+"/"+name
	}
	var st unix.Stat_t
	err := target.Lstat(g.p.Pid, path, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && (uint32(st.Ino) == u.file || !g.sameName(u, uint32(st.Ino))) {
		out.Mode = st.Mode & 0o7777
		out.Uid, out.Gid, err = target.Owner(g.p.Proc, &st)
		return out, err
	}
	if out.Directory != "" {
		return nil, &refusal{"unix socket " + printable([]byte(name)), "its name is relative and does not lead to it from the working directory", "bind it by an absolute path"}
	}
	out.Unlinked = true
	return out, nil
}

// sameName: another socket was bound by the same name, and its file is inode. A
// file system may show other inode numbers than the kernel knows (overlayfs),
// so a number alone proves nothing.
func (g *getter) sameName(u *unixSocket, inode uint32) bool {
	for _, o := range g.unix {
		if o != u && bytes.Equal(o.name, u.name) && o.file == inode {
			return true
		}
	}
	return false
}

// netlinkGroups lists the netlink groups the socket is a member of.
func (g *getter) netlinkGroups() ([]uint32, error) {
	b, err := get(g.fd, solNetlink, listMembers, 64)
	if err != nil {
		return nil, err
	}
	var out []uint32
	for i := range len(b) * 8 {
		if b[i/8]&(1<<(i%8)) != 0 {
			out = append(out, uint32(i+1))
		}
	}
	return out, nil
}

// options compares with a new socket of the same namespace, whose sysctls give
// the defaults.
func (g *getter) options(msg *state.Socket) (out []*state.SocketOption, err error) {
	family, typ := int(msg.Family), int(msg.Type)
	kind := [3]int{family, typ, int(msg.Protocol)}
	if g.fresh[kind] == nil {
		err = target.InNamespace(g.p.Proc.Path("ns/net"), func() error {
			fresh, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, int(msg.Protocol))
			if err != nil {
				return fmt.Errorf("make a socket to compare with: %w", err)
			}
			defer unix.Close(fresh)
			g.fresh[kind], err = values(fresh, family, typ)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return changed(g.fd, g.fresh[kind], family, typ)
}
