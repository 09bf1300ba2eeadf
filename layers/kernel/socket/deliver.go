// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// The engine sends again what waits with more than data, by descriptors of its
// own: it has the rights to pass any description on, and to speak for any process
// of the container.

// finishUnix does for unix sockets what needs every description and every name:
// it delivers messages, then connects. A datagram socket that is connected takes
// messages from its peer only, but keeps those that came before.
func (s *Subsystem) finishUnix() (err error) {
	c := &courier{Subsystem: s, speakers: map[uint32]*target.Task{}}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, desc := range slices.Sorted(maps.Keys(s.in)) {
		a := s.in[desc]
		if len(a.unread) == 0 || a.builtBy == 0 {
			continue
		}
		if err := c.deliver(desc, a); err != nil {
			return fmt.Errorf("socket %d (%s): deliver what is unread: %w", desc, summary(a.msg), err)
		}
	}
	return s.connectUnix()
}

// courier delivers.
type courier struct {
	*Subsystem
	// speakers are made for processes that have ended since they sent something.
	speakers map[uint32]*target.Task
}

// deliver sends to one socket what it had not read.
func (c *courier) deliver(desc uint64, a *arrival) (err error) {
	t := c.env.Frame.Task(a.builtBy)
	if t == nil || t.Traced == nil {
		return target.ErrNotStopped
	}
	to, err := c.env.Frame.OpenDescription(desc)
	if err != nil {
		return err
	}
	defer to.Close()
	var senders source
	if isNamedDatagram(a.msg) {
		senders, err = c.byName(t, a)
	} else {
		senders, err = c.byPair(t, a)
	}
	if err != nil {
		return err
	}
	restore, err := still(int(to.Fd()))
	if err != nil {
		return errors.Join(err, senders.close())
	}
	for _, m := range a.unread {
		if err = c.send(senders, m); err != nil {
			break
		}
	}
	a.unread = nil
	return errors.Join(err, restore(), senders.close())
}

// source is where messages come from.
type source interface {
	// sender returns the socket to send a message by, and the address to send it
	// to, sa_family included; none if the socket is connected.
	sender(m *state.SocketMessage) (fd int, to []byte, err error)
	close() error
}

// send sends one message with what came with it.
func (c *courier) send(from source, m *state.SocketMessage) (err error) {
	fd, to, err := from.sender(m)
	if err != nil {
		return err
	}
	var control []byte
	if u := m.Credentials; u != nil {
		cred, err := c.speak(u)
		if err != nil {
			return err
		}
		control = append(control, unix.UnixCredentials(cred)...)
	}
	var rights []int
	for _, id := range m.Right {
		d, err := c.env.Frame.OpenDescription(id)
		if err != nil {
			return err
		}
		defer d.Close()
		rights = append(rights, int(d.Fd()))
	}
	if len(rights) > 0 {
		control = append(control, unix.UnixRights(rights...)...)
	}
	n, err := sendmsg(fd, m.Data, control, to)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: the queue is shorter here than it was (net.unix.max_dgram_qlen)", err)
	case err != nil:
		return err
	case n != len(m.Data):
		return fmt.Errorf("%d of %d bytes were taken", n, len(m.Data))
	}
	return nil
}

// sendmsg is sendmsg(2) with an address as bytes.
func sendmsg(fd int, data, control, to []byte) (int, error) {
	var iov unix.Iovec
	if len(data) > 0 {
		iov.Base = &data[0]
	}
	iov.SetLen(len(data))
	h := unix.Msghdr{Iov: &iov}
	h.SetIovlen(1)
	if len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
	if len(to) > 0 {
		h.Name, h.Namelen = &to[0], uint32(len(to))
	}
	n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if e != 0 {
		return 0, os.NewSyscallError("sendmsg", e)
	}
	return int(n), nil
}

// speak translates credentials into the engine's numbers. The kernel takes none
// of a process that does not exist, so one that has ended gets a stand-in. Where
// the live spec's user could not be another one, all messages are that user's.
func (c *courier) speak(u *state.SocketCredentials) (*unix.Ucred, error) {
	first := c.env.Frame.Task(target.FirstTask)
	uid, gid := u.Uid, u.Gid
	if al := &c.env.Frame.Allowed; !al.AnyUser() {
		uid, gid = al.UID, al.GID
	}
	hostUID, hostGID, ok, err := target.HostOwner(first.Proc, uid, gid)
	if err != nil {
		return nil, err
	}
	if !ok {
		hostUID, hostGID = nobody, nobody
	}
	out := &unix.Ucred{Pid: int32(os.Getpid()), Uid: hostUID, Gid: hostGID} // outside of the container
	if u.Pid == 0 {
		return out, nil
	}
	pid, err := c.hostPid(u.Pid)
	out.Pid = int32(pid)
	return out, err
}

// hostPid finds a process or thread of the container by its number there.
func (c *courier) hostPid(pid uint32) (int, error) {
	if t := c.speakers[pid]; t != nil {
		return t.Pid, nil
	}
	if host, err := c.env.Frame.HostPid(int(pid)); err != nil || host != 0 {
		return host, err
	}
	t, err := c.env.Frame.Task(target.FirstTask).Fork(target.Birth{Pid: int(pid)})
	if err != nil {
		return 0, fmt.Errorf("a process in the place of %d, which sent a message and has ended: %w", pid, err)
	}
	c.speakers[pid] = t
	return t.Pid, nil
}

// close ends the stand-ins.
func (c *courier) close() error {
	var errs []error
	for pid, t := range c.speakers {
		err := t.End(0)
		if err == nil {
			err = c.env.Frame.Task(target.FirstTask).Bury(int(pid))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// still has the kernel add nothing to the messages that a socket sends or
// receives, and lets it send as much as there is, until restore is called.
func still(fd int) (restore func() error, err error) {
	var was [4]int
	names := [...]int{unix.SO_PASSCRED, soPassPidfd, unix.SO_SNDBUF, soBufLock}
	for i, name := range names {
		if was[i], err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, name); errors.Is(err, unix.ENOPROTOOPT) {
			was[i], err = 0, nil
		}
		if err != nil {
			return nil, os.NewSyscallError("getsockopt", err)
		}
	}
	set := func(cred, pidfd, size, lock int) error {
		var errs []error
		for _, o := range [][2]int{{unix.SO_PASSCRED, cred}, {soPassPidfd, pidfd}, {unix.SO_SNDBUFFORCE, size}, {soBufLock, lock}} {
			err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], o[1])
			if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
				errs = append(errs, os.NewSyscallError("setsockopt", err))
			}
		}
		return errors.Join(errs...)
	}
	const bothLocked = 3
	return func() error { return set(was[0], was[1], was[2]/2, was[3]) }, set(0, 0, 1<<30, was[3]&bothLocked)
}
