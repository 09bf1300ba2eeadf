// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/spec/state"
)

// beginAll lets the connections work, but for what comes from outside. It runs at the
// commit, when nothing can fail any more in the tasks and none of them runs yet. All
// ends exist, so that what one transmits finds the other. What they transmit the source
// has transmitted before, or would, so that it can go on after all (sinkAll).
func (s *Subsystem) beginAll() error {
	// What is acknowledged of the data on their way must have been transmitted before
	// the acknowledgment arrives.
	if err := s.rehearseAll(); err != nil {
		return err
	}
	if err := errors.Join(s.each((*rising).begin), s.each((*rising).markWithin), s.each((*rising).write)); err != nil {
		return err
	}
	return s.each((*rising).end)
}

// sinkAll ends the connections of a copy that is given up without a word to their other
// ends, which go on with the source: in repair mode close(2) tells nobody, whoever does
// it last.
func (s *Subsystem) sinkAll() error {
	var errs []error
	for _, r := range s.rising {
		if _, err := tcprepair.Enter(r.fd()); err != nil {
			errs = append(errs, fmt.Errorf("socket: %s: %w", r.what, err))
		}
	}
	return errors.Join(errs...)
}

// openAll lets in what comes from outside, whose acknowledgment cannot be taken back.
func (s *Subsystem) openAll() error {
	if err := s.kept.letThrough(); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := s.startPlay(); err != nil {
		return fmt.Errorf("socket: what arrived at the source: %w", err)
	}
	if err := s.each((*rising).toDevice); err != nil {
		return err
	}
	for _, c := range s.connecting {
		if err := c.connect(); err != nil {
			return fmt.Errorf("socket: %s: %w", summary(c.msg), err)
		}
	}
	s.leaveHush()
	return nil
}

// each does the same with every connection.
func (s *Subsystem) each(part func(*rising) error) error {
	for _, r := range s.rising {
		if err := part(r); err != nil {
			return fmt.Errorf("socket: %s: %w", r.what, err)
		}
	}
	return nil
}

// closeRising gives up the engine's hold. What is in repair mode still goes
// without a word to the other end.
func (s *Subsystem) closeRising() error {
	for _, r := range s.rising {
		_ = r.own.Close()
		if r.standIn != nil {
			_ = unix.Close(r.standIn.fd)
		}
	}
	for _, c := range s.connecting {
		_ = c.own.Close()
	}
	s.rising, s.connecting = nil, nil
	return nil
}

// begin ends repair mode. Where nothing is transmitted at once, the other end is asked
// how much it has received: what is queued as transmitted may have arrived.
func (r *rising) begin() error {
	if r.standIn != nil {
		if err := tcprepair.Leave(r.standIn.fd, 0, false); err != nil {
			return err
		}
	}
	transmits := len(r.push) > 0 || r.msg.Tcp.SendEnded && !r.ended && len(r.unsent) == 0
	return tcprepair.Leave(r.fd(), reuseAddress(r.msg), !transmits && r.standIn == nil)
}

// reuseAddress is the value of SO_REUSEADDR.
func reuseAddress(m *state.Socket) int {
	if o := find(m.Option, unix.SOL_SOCKET, unix.SO_REUSEADDR); o != nil {
		return int(binary.LittleEndian.Uint32(o.Value))
	}
	return 0
}

// write transmits what was on its way, whole and at once (MSG_EOR: the kernel
// does not wait for more), then sets the options that decide when something is
// transmitted, and writes the rest.
func (r *rising) write() error {
	if err := unix.SetsockoptInt(r.fd(), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("setsockopt(TCP_NODELAY): %w", err)
	}
	if err := sendSegments(r.fd(), r.push, unix.MSG_EOR); err != nil {
		return err
	}
	for _, name := range []uint32{unix.TCP_CORK, unix.TCP_NODELAY} {
		o := find(r.msg.Option, unix.IPPROTO_TCP, name)
		if o == nil {
			o = &state.SocketOption{Level: unix.IPPROTO_TCP, Name: name, Value: int32Bytes(0)}
		}
		if err := setOwn(r.fd(), o); err != nil {
			return err
		}
	}
	return sendAll(r.fd(), r.unsent, 0)
}

// end ends the streams that were ended and gives the buffers their sizes.
func (r *rising) end() error {
	if r.msg.Tcp.Outside {
		if err := r.markAll(); err != nil {
			return err
		}
	}
	if r.standIn != nil {
		// The end of the other stream arrives; what is left of the socket is the
		// kernel's, as it was.
		if err := unix.Shutdown(r.standIn.fd, unix.SHUT_RDWR); err != nil {
			return fmt.Errorf("end the stream of the other end, which is closed: %w", err)
		}
	}
	t := r.msg.Tcp
	// In the order in which it was: CLOSING is not LAST_ACK.
	turns := []func() error{r.endIncoming, r.endOutgoing}
	if t.EndedFirst {
		slices.Reverse(turns)
	}
	for _, fn := range turns {
		if err := fn(); err != nil {
			return err
		}
	}
	if t.ReceiveShut {
		if err := unix.Shutdown(r.fd(), unix.SHUT_RD); err != nil && !errors.Is(err, unix.ENOTCONN) {
			return fmt.Errorf("shutdown: %w", err)
		}
	}
	for _, o := range r.msg.Option {
		if o.Level == unix.SOL_SOCKET || !later(o) {
			continue
		}
		if err := setOwn(r.fd(), o); err != nil {
			return err
		}
	}
	return r.narrow()
}

// markWithin has a byte out of band arrive before the other end, which is in the
// container, transmits once more what was not acknowledged: without a mark.
func (r *rising) markWithin() error {
	if r.msg.Tcp.Outside {
		return nil // nothing arrives yet
	}
	return r.markAll()
}

func (r *rising) markAll() error {
	if len(r.behind) == 0 {
		return nil
	}
	if err := target.InNamespace(r.net, r.mark); err != nil {
		return fmt.Errorf("what was received from a byte out of band on: %w", err)
	}
	return nil
}

// endIncoming has the end of the other stream arrive, if that has ended.
func (r *rising) endIncoming() error {
	if t := r.msg.Tcp; !t.Outside || !t.ReceiveEnded {
		return nil
	}
	if err := target.InNamespace(r.net, r.endOther); err != nil {
		return fmt.Errorf("end the stream of the other end, which had ended it: %w", err)
	}
	return nil
}

// endOutgoing ends the stream that the program has ended.
func (r *rising) endOutgoing() error {
	if !r.msg.Tcp.SendEnded || r.ended {
		return nil
	}
	if err := unix.Shutdown(r.fd(), unix.SHUT_WR); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

// toDevice binds it to the device that it was bound to, when it receives nothing
// over the loopback any more (package packet).
func (r *rising) toDevice() error {
	o := find(r.msg.Option, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if o == nil {
		return nil
	}
	if r.bound != nil {
		r.bound()
	}
	return setOwn(r.fd(), o)
}

// narrow gives the buffers the sizes that they had, and to the kernel those
// that it had chosen.
func (r *rising) narrow() error {
	lock := 0
	for _, b := range []struct {
		name, force, bit int
		size             uint32
	}{
		{unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, 1, r.msg.Tcp.SendBuffer},
		{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, 2, r.msg.Tcp.ReceiveBuffer},
	} {
		size := int(min(b.size, r.limits[b.bit]) / 2) // the kernel doubles it
		if find(r.msg.Option, unix.SOL_SOCKET, uint32(b.name)) != nil {
			lock |= b.bit
		}
		if err := unix.SetsockoptInt(r.fd(), unix.SOL_SOCKET, b.force, size); err != nil {
			return fmt.Errorf("setsockopt(%d): %w", b.force, err)
		}
	}
	err := unix.SetsockoptInt(r.fd(), unix.SOL_SOCKET, soBufLock, lock)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) { // before Linux 5.16
		return fmt.Errorf("setsockopt(SO_BUF_LOCK): %w", err)
	}
	return nil
}

// setOwn sets an option on a socket of ours.
func setOwn(fd int, o *state.SocketOption) error {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(o.Level), uintptr(o.Name), uintptr(unsafe.Pointer(&o.Value[0])), uintptr(len(o.Value)), 0)
	if e != 0 {
		return fmt.Errorf("setsockopt(%d, %d): %w", o.Level, o.Name, e)
	}
	return nil
}

// rawConnect is connect(2) with an address as bytes.
func rawConnect(fd int, addr []byte) error { return rawAddress(unix.SYS_CONNECT, fd, addr) }

func rawAddress(nr uintptr, fd int, addr []byte) error {
	if _, _, e := unix.Syscall(nr, uintptr(fd), uintptr(unsafe.Pointer(&addr[0])), uintptr(len(addr))); e != 0 {
		return e
	}
	return nil
}

// connecting is a socket that connects anew at the commit.
type connecting struct {
	own *target.Duplicate
	msg *state.Socket
}

// connect starts a handshake and does not wait for its end. What comes of it is
// the program's to find out, as it would have been.
func (c *connecting) connect() error {
	fd := int(c.own.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	err := rawConnect(fd, sockaddr(c.msg.Family, c.msg.Remote))
	switch {
	case err == nil, errors.Is(err, unix.EINPROGRESS):
		return unix.SetNonblock(fd, c.msg.Flags&unix.O_NONBLOCK != 0)
	}
	return explain(fmt.Errorf("connect: %w", err))
}
