// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// messagesPerPlan keeps a batch's parameters small.
const messagesPerPlan = 256

// pair makes two sockets that are connected to each other, puts back what each
// had not read, and places them. other is nil where the other end is closed.
func (b *builder) pair(desc uint64, a, other *arrival) error {
	x, y, err := b.twoEnds(a.msg, other)
	if err != nil {
		return err
	}
	p := b.task.Plan()
	mine := p.DupAbove(x, b.task.Table.Aside())
	its := p.DupAbove(y, b.task.Table.Aside())
	p.Close(x)
	p.Close(y)
	// What a sender has on its way is limited by its buffer; a default one may
	// be smaller than that of the application, which is set behind.
	for _, fd := range []int{mine, its} {
		setInt(p, fd, unix.SO_SNDBUF, 1<<30)
	}
	if err := p.Run(); err != nil {
		return err
	}
	if err := b.fill(its, a); err != nil {
		return err
	}
	if other != nil {
		if err := b.fill(mine, other); err != nil {
			return err
		}
	}
	p = b.task.Plan()
	// What is delivered later needs both directions until then.
	later := len(a.unread) > 0 || other != nil && len(other.unread) > 0
	switch {
	case other == nil && later:
		a.feeder = its
		b.task.Table.Keep(its)
	case other == nil:
		p.Close(its)
	default:
		if err := b.end(p, a.msg.Peer, its, other.msg, later); err != nil {
			return err
		}
	}
	if err := b.end(p, desc, mine, a.msg, later); err != nil {
		return err
	}
	return p.Run()
}

// twoEnds makes two sockets that are connected to each other, the first of them
// for m.
func (b *builder) twoEnds(m *state.Socket, other *arrival) (x, y int, err error) {
	its := m // of an end that is closed
	if other != nil {
		its = other.msg
	}
	for _, named := range []bool{isNamed(m), isNamed(its) && its != m} {
		ok := false
		switch {
		case named && isNamed(m):
			x, y, ok, err = b.namedPair(m, its)
		case named:
			y, x, ok, err = b.namedPair(its, m)
		}
		if ok || err != nil {
			return x, y, err
		}
	}
	p := b.task.Plan()
	addr, _ := p.Out(8)
	p.AsUser(m.Uid, m.Gid)
	x, y = p.OpenPair(tracer.Syscall(unix.SYS_SOCKETPAIR, unix.AF_UNIX, uint64(m.Type|unix.SOCK_CLOEXEC), 0, addr), addr)
	p.AsRoot()
	return x, y, p.Run()
}

// end finishes one end and places it. open: neither direction is closed yet.
func (b *builder) end(p *target.Plan, desc uint64, fd int, m *state.Socket, open bool) error {
	sized := false
	for _, o := range m.Option {
		setOption(p, fd, o)
		sized = sized || o.Level == unix.SOL_SOCKET && o.Name == unix.SO_SNDBUF
	}
	if !sized {
		b.defaultBuffer(p, fd)
	}
	attachFilter(p, fd, m)
	const receiving, sending = 1, 2
	if m.Shutdown&receiving != 0 && !open {
		p.Quiet(tracer.Syscall(unix.SYS_SHUTDOWN, uint64(fd), unix.SHUT_RD))
	}
	if m.Shutdown&sending != 0 && !open {
		p.Quiet(tracer.Syscall(unix.SYS_SHUTDOWN, uint64(fd), unix.SHUT_WR))
	}
	b.finish(p, fd, m)
	return p.Place(desc, fd)
}

// defaultBuffer undoes the larger buffer that filling needed: the size of a new
// socket's, half of what the kernel shows, and the mark that it was set.
func (b *builder) defaultBuffer(p *target.Plan, fd int) {
	size, err := defaultSendBuffer()
	if err != nil {
		return // as large as it may be: of no consequence but for its limit
	}
	setInt(p, fd, unix.SO_SNDBUF, size/2)
	p.Quiet(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), unix.SOL_SOCKET, soBufLock, p.Put(int32Bytes(0)), 4))
}

// defaultSendBuffer is net.core.wmem_default, which is the same in every
// network namespace.
func defaultSendBuffer() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
}

// fill sends to the other end of from what it had not read.
func (b *builder) fill(from int, a *arrival) error {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	send := func(p *target.Plan, data []byte) {
		p.Expect(tracer.Syscall(unix.SYS_SENDTO, uint64(from), p.Put(data), uint64(len(data)), flags, 0, 0), int64(len(data)))
	}
	if len(a.stream) > 0 {
		p := b.task.Plan()
		send(p, a.stream)
		return p.Run()
	}
	for rest := a.messages; len(rest) > 0; {
		n := min(len(rest), messagesPerPlan)
		p := b.task.Plan()
		for _, m := range rest[:n] {
			send(p, m)
		}
		if err := p.Run(); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}
