// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// builder makes sockets in one process.
type builder struct {
	task    *target.Task
	allowed *target.Allowed
}

// single makes a socket that needs no other one.
func (b *builder) single(desc uint64, a *arrival) error {
	m := a.msg
	protocol, err := b.multipath(m)
	if err != nil {
		return fmt.Errorf("make a socket to see whether there is MPTCP: %w", err)
	}
	p := b.task.Plan()
	fd := b.socket(p, m, protocol)
	b.options(p, fd, m)
	if m.Packet != nil {
		if err := b.buildPacket(p, fd, m.Packet); err != nil {
			return err
		}
	}
	if err := p.Run(); err != nil {
		return err
	}
	if err := b.address(fd, a); err != nil {
		return err
	}
	if err := a.receiveAgain(b.task, fd); err != nil {
		return err
	}
	p = b.task.Plan()
	if err := joinGroups(p, fd, m.Membership, b.interfaceIndex); err != nil {
		return err
	}
	b.finish(p, fd, m)
	if err := p.Place(desc, fd); err != nil {
		return err
	}
	return p.Run()
}

// socket is made by its user. One for which that takes a capability (permitted has
// looked for it) is made by root, since a user has none, and given to its user.
func (b *builder) socket(p *target.Plan, m *state.Socket, protocol uint32) int {
	call := tracer.Syscall(unix.SYS_SOCKET, uint64(m.Family), uint64(m.Type|unix.SOCK_CLOEXEC), uint64(protocol))
	if !needsRaw(m) {
		p.AsUser(m.Uid, m.Gid)
		fd := p.Open(call)
		p.AsRoot()
		return fd
	}
	fd := p.Open(call)
	uid, gid := m.Uid, m.Gid
	if !b.allowed.AnyUser() {
		uid, gid = b.allowed.UID, b.allowed.GID
	}
	if uid != 0 || gid != 0 {
		p.Call(tracer.Syscall(unix.SYS_FCHOWN, uint64(fd), uint64(uid), uint64(gid)))
	}
	return fd
}

// interfaceIndex finds an interface of the task's network.
func (b *builder) interfaceIndex(name string) (index uint32, err error) {
	err = target.InNamespace(b.task.Proc.Path("ns/net"), func() error {
		link, err := net.InterfaceByName(name)
		if err == nil {
			index = uint32(link.Index)
		}
		return err
	})
	return index, err
}

// options sets the options before the socket has an address. In a network
// namespace that outlived the container, a TCP port may still have connections
// on their way out: those that allow it must not keep the socket from binding,
// so SO_REUSEADDR is set for the moment.
func (b *builder) options(p *target.Plan, fd int, m *state.Socket) {
	for _, o := range m.Option {
		setOption(p, fd, o)
	}
	attachFilter(p, fd, m)
	if m.Type == unix.SOCK_STREAM && m.Family != unix.AF_UNIX {
		setInt(p, fd, unix.SO_REUSEADDR, 1)
	}
}

// finish sets the flags and what was changed for the moment.
func (b *builder) finish(p *target.Plan, fd int, m *state.Socket) {
	if m.Type == unix.SOCK_STREAM && m.Family != unix.AF_UNIX {
		var was uint32
		for _, o := range m.Option {
			if o.Level == unix.SOL_SOCKET && o.Name == unix.SO_REUSEADDR {
				was = binary.LittleEndian.Uint32(o.Value)
			}
		}
		setInt(p, fd, unix.SO_REUSEADDR, int(was))
	}
	for _, g := range m.Group {
		p.Call(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), solNetlink, addMember, p.Put(int32Bytes(int(g))), 4))
	}
	if m.State == state.SocketState_SOCKET_STATE_CLOSED {
		// It answers ENOTCONN, and marks the socket all the same (net/ipv4/
		// af_inet.c, inet_shutdown).
		p.Quiet(tracer.Syscall(unix.SYS_SHUTDOWN, uint64(fd), unix.SHUT_RDWR))
	}
	if m.PeekOffset > 0 {
		setInt(p, fd, soPeekOff, int(m.PeekOffset-1))
	}
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(m.Flags&unix.O_NONBLOCK)))
}

// attachFilter attaches the packet filter, before a packet can arrive.
func attachFilter(p *target.Plan, fd int, m *state.Socket) {
	if len(m.Filter) == 0 {
		return
	}
	// struct sock_fprog: the number of instructions and their address.
	prog := binary.LittleEndian.AppendUint64(nil, uint64(len(m.Filter)/8))
	prog = binary.LittleEndian.AppendUint64(prog, p.Put(m.Filter))
	p.Call(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, p.Put(prog), uint64(len(prog))))
	if m.FilterLocked {
		setInt(p, fd, unix.SO_LOCK_FILTER, 1)
	}
}

func setOption(p *target.Plan, fd int, o *state.SocketOption) {
	p.Call(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), uint64(o.Level), uint64(o.Name), p.Put(o.Value), uint64(len(o.Value))))
}

func setInt(p *target.Plan, fd, name, value int) {
	p.Call(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), unix.SOL_SOCKET, uint64(name), p.Put(int32Bytes(value)), 4))
}

// address binds, listens and connects. Unix sockets connect later: finishUnix.
func (b *builder) address(fd int, a *arrival) error {
	m := a.msg
	p := b.task.Plan()
	var err error
	var exact, any = -1, -1
	b.asBinder(p, m)
	switch {
	case len(m.Local) == 0:
	case m.File != nil:
		err = b.bindFile(p, fd, a)
	case len(m.Remote) > 0 && m.Family != unix.AF_UNIX:
		// A connected UDP socket may have got its address from the route: where
		// this host does not have it, the route chooses again.
		exact = p.Quiet(bind(p, fd, m.Family, m.Local))
		any = p.Quiet(bind(p, fd, m.Family, wildcard(m.Local)))
	default:
		p.Call(bind(p, fd, m.Family, m.Local))
	}
	if err != nil {
		return err
	}
	p.AsRoot()
	if m.State == state.SocketState_SOCKET_STATE_LISTENING {
		p.AsUser(m.Uid, m.Gid) // whose credentials clients will see
		p.Call(tracer.Syscall(unix.SYS_LISTEN, uint64(fd), uint64(m.Backlog)))
		p.AsRoot()
	}
	if len(m.Remote) > 0 && m.Family != unix.AF_UNIX {
		addr := sockaddr(m.Family, m.Remote)
		p.Call(tracer.Syscall(unix.SYS_CONNECT, uint64(fd), p.Put(addr), uint64(len(addr))))
	}
	if err := p.Run(); err != nil {
		return explain(err)
	}
	if exact >= 0 {
		_, err1 := p.Result(exact)
		_, err2 := p.Result(any)
		if err1 != nil && err2 != nil {
			return explain(fmt.Errorf("bind: %w", errors.Join(err1, err2)))
		}
	}
	return nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: somebody else uses the address: the original, or, for a minute, its connections, in the same network namespace", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: this network has no such address", err)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: nobody is there to connect to", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: the user of the container's spec may not bind it", err)
	}
	return err
}

func bind(p *target.Plan, fd int, family uint32, local []byte) tracer.Call {
	addr := sockaddr(family, local)
	return tracer.Syscall(unix.SYS_BIND, uint64(fd), p.Put(addr), uint64(len(addr)))
}

// asBinder takes the ids to bind with: a forged image must not bind a port or a
// name that the live spec's user could not. AsRoot ends it.
func (b *builder) asBinder(p *target.Plan, m *state.Socket) {
	if b.allowed.AnyUser() || m.File == nil && b.allowed.Permitted&(1<<unix.CAP_NET_BIND_SERVICE) != 0 {
		p.AsUser(0, 0)
		return
	}
	p.AsUser(b.allowed.UID, b.allowed.GID)
}
