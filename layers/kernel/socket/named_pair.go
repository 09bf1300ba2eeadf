// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// A connection has a name if it came about by one: what accept(2) returns has the
// name of the listener, as many connections as there are. So such a pair is made
// in the same way, by a listener for the moment, before the container's own
// listeners take the names.

// isNamed: the socket is one of a pair and has a name.
func isNamed(m *state.Socket) bool {
	return m != nil && m.State == state.SocketState_SOCKET_STATE_PAIR && len(m.Local) > 0 && m.Type != unix.SOCK_DGRAM
}

// namedPair connects two sockets by the server's name. ok is false, and nothing
// is left, where the name cannot be bound: the pair does without it then.
func (b *builder) namedPair(server, client *state.Socket) (s, c int, ok bool, err error) {
	l, back, ok, err := b.bindForMoment(server)
	if err != nil || !ok {
		return 0, 0, false, err
	}
	typ := uint64(server.Type | unix.SOCK_CLOEXEC)
	p := b.task.Plan()
	p.AsUser(server.Uid, server.Gid)
	p.Call(tracer.Syscall(unix.SYS_LISTEN, uint64(l), 1))
	p.AsRoot()
	p.AsUser(client.Uid, client.Gid)
	c = p.Open(tracer.Syscall(unix.SYS_SOCKET, unix.AF_UNIX, typ, 0))
	addr := sockaddr(server.Family, server.Local)
	p.Call(tracer.Syscall(unix.SYS_CONNECT, uint64(c), p.Put(addr), uint64(len(addr))))
	p.AsRoot()
	s = p.Open(tracer.Syscall(unix.SYS_ACCEPT4, uint64(l), 0, 0, unix.SOCK_CLOEXEC))
	p.Close(l)
	back(p, true)
	if err := p.Run(); err != nil {
		return 0, 0, false, fmt.Errorf("connect two sockets by the name %s: %w", printable(server.Local), err)
	}
	return s, c, true, nil
}

// bindForMoment makes a socket and binds it. What has its path by now is put
// aside; back puts it back, by a plan that comes later, and removes the socket's.
func (b *builder) bindForMoment(m *state.Socket) (l int, back func(p *target.Plan, bound bool), ok bool, err error) {
	p := b.task.Plan()
	back = func(*target.Plan, bool) {}
	if m.File != nil {
		name, _, st, err := b.approach(p, m)
		if err != nil {
			return 0, nil, false, err
		}
		there := st != nil
		if there {
			p.Quiet(tracer.Syscall(unix.SYS_RENAME, p.PutString(name), p.PutString(name+".mig-aside")))
		}
		back = func(p *target.Plan, bound bool) {
			if bound {
				p.Call(tracer.Syscall(unix.SYS_UNLINK, p.PutString(name)))
			}
			if there {
				p.Quiet(tracer.Syscall(unix.SYS_RENAME, p.PutString(name+".mig-aside"), p.PutString(name)))
			}
		}
	}
	p.AsUser(m.Uid, m.Gid)
	l = p.Open(tracer.Syscall(unix.SYS_SOCKET, unix.AF_UNIX, uint64(m.Type|unix.SOCK_CLOEXEC), 0))
	p.AsRoot()
	b.asBinder(p, m)
	bound := p.Quiet(bind(p, l, m.Family, m.Local))
	p.AsRoot()
	if m.File != nil { // whoever connects may be another user
		p.Quiet(tracer.Syscall(unix.SYS_CHMOD, p.PutString(strings.TrimRight(string(m.Local), "\x00")), 0o777))
	}
	if err := p.Run(); err != nil {
		return 0, nil, false, err
	}
	if _, err := p.Result(bound); err != nil {
		p = b.task.Plan()
		p.Close(l)
		back(p, false)
		return 0, nil, false, p.Run()
	}
	return l, back, true, nil
}
