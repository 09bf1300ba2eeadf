// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
)

// standIn is the other end of a connection, within the same network namespace,
// that its program had closed: all that it wrote has arrived, and the kernel
// keeps the rest of it for a minute. It is made by the engine, ends its stream
// once more, by which this end learns of it, and is closed.
type standIn struct{ fd int }

// newStandIn makes the other end of r in the network namespace of the task.
func newStandIn(t *target.Task, r *rising, a *arrival) (*standIn, error) {
	s := &standIn{fd: -1}
	err := target.InNamespace(t.Proc.Path("ns/net"), func() (err error) {
		s.fd, err = unix.Socket(int(r.msg.Family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the other end, which is closed: %w", err)
	}
	if err := s.connect(r, a); err != nil {
		return nil, errors.Join(fmt.Errorf("the other end, which is closed: %w", explain(err)), unix.Close(s.fd))
	}
	return s, nil
}

// connect gives it what the other end knows of it, seen from its side.
func (s *standIn) connect(r *rising, a *arrival) error {
	m, t := r.msg, r.msg.Tcp
	if _, err := tcprepair.Enter(s.fd); err != nil {
		return err
	}
	received := a.sendFrom()
	if err := setSequences(s.fd, t.ReceiveNext, received); err != nil {
		return err
	}
	if err := rawAddress(unix.SYS_BIND, s.fd, sockaddr(m.Family, m.Remote)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := rawConnect(s.fd, sockaddr(m.Family, m.Local)); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	o := agreed(t)
	o.SendScale, o.ReceiveScale = o.ReceiveScale, o.SendScale
	// Room for the end of the stream, whatever the other end had.
	w := tcprepair.Window{SendUpdate: received, Send: standInWindow, LargestSend: standInWindow, Receive: standInWindow, ReceiveFrom: received}
	return errors.Join(tcprepair.SetOptions(s.fd, o), tcprepair.SetWindow(s.fd, w), tcprepair.Select(s.fd, tcprepair.NoQueue))
}

// standInWindow is what a socket without window scaling may announce, in bytes.
const standInWindow = 65535
