// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// pairSource is the other end of a pair.
type pairSource struct {
	fd       *target.Duplicate
	restore  func() error
	finished func() error
}

func (s *pairSource) sender(*state.SocketMessage) (int, []byte, error) {
	return int(s.fd.Fd()), nil, nil
}

func (s *pairSource) close() error { return errors.Join(s.restore(), s.finished(), s.fd.Close()) }

// byPair sends by the other end, which was kept for that if it is closed. Behind
// it the directions are closed that were.
func (c *courier) byPair(t *target.Task, a *arrival) (source, error) {
	var fd *target.Duplicate
	var err error
	if a.feeder >= 0 {
		fd, err = t.Duplicate(a.feeder)
	} else {
		fd, err = c.env.Frame.OpenDescription(a.msg.Peer)
	}
	if err != nil {
		return nil, err
	}
	restore, err := still(int(fd.Fd()))
	if err != nil {
		return nil, errors.Join(err, fd.Close())
	}
	return &pairSource{fd, restore, func() error { return c.finishPair(t, a) }}, nil
}

// finishPair closes what pair has left open, when both ends have what they had.
func (c *courier) finishPair(t *target.Task, a *arrival) error {
	other := c.in[a.msg.Peer]
	switch {
	case a.feeder >= 0:
		p := t.Plan()
		p.Close(a.feeder)
		a.feeder = -1
		return p.Run()
	case other == nil || len(other.unread) > 0:
		return nil // its turn comes
	}
	return errors.Join(c.shutdown(other.msg.Peer, a.msg), c.shutdown(a.msg.Peer, other.msg))
}

// shutdown closes the directions of an end that were closed.
func (s *Subsystem) shutdown(desc uint64, m *state.Socket) error {
	if m.Shutdown == 0 {
		return nil
	}
	fd, err := s.env.Frame.OpenDescription(desc)
	if err != nil {
		return err
	}
	defer fd.Close()
	if err := unix.Shutdown(int(fd.Fd()), int(m.Shutdown-1)); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

// nameSource is whoever sent datagrams to a name.
type nameSource struct {
	courier *courier
	task    *target.Task
	a       *arrival
	to      []byte
	path    int // of the receiver's file, a descriptor; -1: it has none
	senders map[string]*nameSender
	anonym  int // a socket of the engine's without a name; -1: not made yet
}

type nameSender struct {
	fd   *target.Duplicate
	done func() error
}

// byName finds the address of the receiver. A file is found by the engine as the
// container would find it.
func (c *courier) byName(t *target.Task, a *arrival) (source, error) {
	s := &nameSource{courier: c, task: t, a: a, path: -1, anonym: -1, senders: map[string]*nameSender{}}
	if a.msg.File == nil {
		s.to = sockaddr(unix.AF_UNIX, a.msg.Local)
		return s, nil
	}
	path := strings.TrimRight(string(a.msg.Local), "\x00")
	if a.hidden != "" {
		path = a.hidden
	}
	if a.msg.File.Directory != "" {
		path = a.msg.File.Directory + "/" + path
	}
	var err error
	if s.path, err = target.OpenPath(t.Pid, path); err != nil {
		return nil, err
	}
	s.to = sockaddr(unix.AF_UNIX, append(fmt.Appendf(nil, "/proc/self/fd/%d", s.path), 0))
	return s, nil
}

func (s *nameSource) sender(m *state.SocketMessage) (int, []byte, error) {
	if len(m.Sender) > 0 {
		known, ok := s.senders[string(m.Sender)]
		if !ok {
			var err error
			if known, err = s.find(m.Sender); err != nil {
				return -1, nil, err
			}
			s.senders[string(m.Sender)] = known
		}
		if known != nil {
			return int(known.fd.Fd()), s.to, nil
		}
	}
	if s.anonym < 0 {
		err := target.InNamespace(s.task.Proc.Path("ns/net"), func() (err error) {
			s.anonym, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
		if err != nil {
			return -1, nil, fmt.Errorf("make a socket to send by: %w", err)
		}
	}
	return s.anonym, s.to, nil
}

// find returns a socket with the name: the container's, or one for the moment, if
// that is closed by now; nil if the name cannot be had.
func (s *nameSource) find(name []byte) (*nameSender, error) {
	for desc, o := range s.courier.in {
		if o != s.a && o.builtBy != 0 && isNamedDatagram(o.msg) && sameName(o.msg.Local, name) {
			fd, err := s.courier.env.Frame.OpenDescription(desc)
			if err != nil {
				return nil, err
			}
			restore, err := still(int(fd.Fd()))
			return &nameSender{fd, restore}, err
		}
	}
	b := &builder{task: s.task, allowed: &s.courier.env.Frame.Allowed}
	m := &state.Socket{Family: unix.AF_UNIX, Type: unix.SOCK_DGRAM, Local: name, Uid: s.a.msg.Uid, Gid: s.a.msg.Gid}
	if name[0] != 0 {
		m.File = &state.SocketFile{}
	}
	l, back, ok, err := b.bindForMoment(m)
	if err != nil || !ok {
		return nil, err
	}
	fd, err := s.task.Duplicate(l)
	if err != nil {
		return nil, err
	}
	return &nameSender{fd, func() error {
		p := s.task.Plan()
		p.Close(l)
		back(p, true)
		return p.Run()
	}}, nil
}

// sameName: the kernel ends a path by a NUL byte, which belongs to its length.
func sameName(a, b []byte) bool {
	if len(a) > 0 && a[0] != 0 {
		a, b = bytes.TrimRight(a, "\x00"), bytes.TrimRight(b, "\x00")
	}
	return bytes.Equal(a, b)
}

func (s *nameSource) close() error {
	var errs []error
	for _, known := range s.senders {
		if known != nil {
			errs = append(errs, known.done(), known.fd.Close())
		}
	}
	if s.anonym >= 0 {
		errs = append(errs, unix.Close(s.anonym))
	}
	if s.path >= 0 {
		errs = append(errs, unix.Close(s.path))
	}
	if s.a.hidden != "" {
		p := s.task.Plan()
		inDirectory(p, s.a.msg)
		p.Call(tracer.Syscall(unix.SYS_UNLINK, p.PutString(s.a.hidden)))
		errs = append(errs, p.Run())
	}
	return errors.Join(errs...)
}

// inDirectory enters the directory that a relative name starts from: the working
// directory is set later by the file subsystem.
func inDirectory(p *target.Plan, m *state.Socket) {
	if m.File != nil && m.File.Directory != "" {
		p.Call(tracer.Syscall(unix.SYS_CHDIR, p.PutString(m.File.Directory)))
	}
}
