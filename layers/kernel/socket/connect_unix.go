// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// connectUnix connects datagram sockets to the names that they send to, and those
// that wait to be accepted, in their order.
func (s *Subsystem) connectUnix() error {
	waiting := 0
	if err := s.connectDatagrams(); err != nil {
		return err
	}
	for _, desc := range slices.Sorted(maps.Keys(s.in)) {
		a := s.in[desc]
		if a.msg.Family != unix.AF_UNIX || a.builtBy == 0 {
			continue
		}
		var err error
		switch a.msg.State {
		case state.SocketState_SOCKET_STATE_CONNECTING:
			waiting++
		case state.SocketState_SOCKET_STATE_LISTENING:
			for _, client := range a.msg.Pending {
				if err = s.connectWaiting(client, desc, a.msg); err != nil {
					break
				}
				waiting--
			}
		}
		if err != nil {
			return fmt.Errorf("socket %d (%s): %w", desc, summary(a.msg), err)
		}
	}
	if waiting != 0 {
		return errors.New("unix sockets that wait to be accepted and those that listen do not fit each other")
	}
	return nil
}

// madeIn is the process that made a description, and its descriptor there.
func (s *Subsystem) madeIn(desc uint64, a *arrival) (*target.Task, int, error) {
	t := s.env.Frame.Task(a.builtBy)
	if t == nil || t.Traced == nil {
		return nil, -1, target.ErrNotStopped
	}
	fd, ok := t.Table.Made(desc)
	if !ok {
		return nil, -1, fmt.Errorf("process %d has no descriptor of it", t.ID)
	}
	return t, fd, nil
}

// connectDatagrams connects each socket behind all that connect to it: one that is
// connected can be connected to by its peer only.
func (s *Subsystem) connectDatagrams() error {
	from := map[uint64][]uint64{}
	var all []uint64
	for _, desc := range slices.Sorted(maps.Keys(s.in)) {
		if m := s.in[desc].msg; m.Family == unix.AF_UNIX && m.State == state.SocketState_SOCKET_STATE_CONNECTED && s.in[desc].builtBy != 0 {
			all, from[m.Peer] = append(all, desc), append(from[m.Peer], desc)
		}
	}
	done := map[uint64]bool{}
	var connect func(desc uint64) error
	connect = func(desc uint64) error {
		if done[desc] {
			return nil
		}
		done[desc] = true
		for _, other := range from[desc] {
			if err := connect(other); err != nil {
				return err
			}
		}
		a := s.in[desc]
		if err := s.connectDatagram(desc, a); err != nil {
			return fmt.Errorf("socket %d (%s): %w", desc, summary(a.msg), err)
		}
		return nil
	}
	for _, desc := range all {
		if err := connect(desc); err != nil {
			return err
		}
	}
	return nil
}

func (s *Subsystem) connectDatagram(desc uint64, a *arrival) error {
	t, fd, err := s.madeIn(desc, a)
	if err != nil {
		return err
	}
	return explain(connectTo(t.Plan(), fd, a.msg, a.msg.Remote))
}

// connectTo connects a unix socket to a name, as the user who made it: whom the
// other end sees. The permission of a file may have been changed since it was
// connected first.
func connectTo(p *target.Plan, fd int, m *state.Socket, name []byte) error {
	addr := sockaddr(unix.AF_UNIX, name)
	connect := tracer.Syscall(unix.SYS_CONNECT, uint64(fd), p.Put(addr), uint64(len(addr)))
	// A listener that is full must not hold us up.
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, unix.O_NONBLOCK))
	p.AsUser(m.Uid, m.Gid)
	asUser := p.Quiet(connect)
	p.AsRoot()
	asRoot := p.Quiet(connect)
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(m.Flags&unix.O_NONBLOCK)))
	if err := p.Run(); err != nil {
		return err
	}
	_, err := p.Result(asUser)
	if errors.Is(err, unix.EACCES) {
		_, err = p.Result(asRoot)
	}
	return err
}

// connectWaiting connects one socket to a listener of the image by its name.
func (s *Subsystem) connectWaiting(client, listener uint64, l *state.Socket) error {
	a := s.in[client]
	if a == nil || a.msg.Family != unix.AF_UNIX || a.msg.State != state.SocketState_SOCKET_STATE_CONNECTING || a.msg.Peer != listener || a.builtBy == 0 || a.msg.Type != l.Type {
		return fmt.Errorf("description %d does not wait for it", client)
	}
	t, fd, err := s.madeIn(client, a)
	if err != nil {
		return err
	}
	p := t.Plan()
	inDirectory(p, l)
	if err := connectTo(p, fd, a.msg, l.Local); err != nil {
		return fmt.Errorf("connect socket %d, which waits to be accepted: %w", client, explain(err))
	}
	return s.shutdown(client, a.msg)
}
