// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/spec/state"
)

// tcpState is a connection as it was read: the message, what was received and
// not read, and what was written and not acknowledged.
type tcpState struct {
	msg            *state.TcpConnection
	receive, send  []byte
	sendEndArrived bool // the end of its stream was acknowledged
}

// Bits of tcpi_options in include/uapi/linux/tcp.h.
const (
	infoTimestamps = 1
	infoSACK       = 2
	infoScale      = 4
)

// readTCP reads a connection through a descriptor of our own. The socket, which
// must be marked, is in repair mode meanwhile, so the container must be frozen.
func readTCP(fd int) (t *tcpState, err error) {
	reuse, err := tcprepair.Enter(fd)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tcprepair.Leave(fd, reuse, false)) }()
	info, err := get(fd, unix.IPPROTO_TCP, unix.TCP_INFO, 72)
	if err != nil || len(info) < 72 {
		return nil, fmt.Errorf("getsockopt(TCP_INFO): %d bytes: %w", len(info), err)
	}
	// Of struct tcp_info: tcpi_state, then (5) _options and (6) _snd_wscale and
	// _rcv_wscale of four bits each, (16) _snd_mss, (68) _rtt.
	tcp, options, scales := info[0], info[5], uint32(info[6])
	window, err := tcprepair.GetWindow(fd)
	if err != nil {
		return nil, err
	}
	t = &tcpState{msg: &state.TcpConnection{
		SendEnded: finSent(tcp), ReceiveEnded: finReceived(tcp), EndedFirst: tcp == stateClosing,
		Segment:   binary.NativeEndian.Uint32(info[16:]),
		RoundTrip: binary.NativeEndian.Uint32(info[68:]),
		Sack:      options&infoSACK != 0, Timestamps: options&infoTimestamps != 0,
		Window: &state.TcpWindow{
			SendUpdate: window.SendUpdate, Send: window.Send, LargestSend: window.LargestSend,
			Receive: window.Receive, ReceiveFrom: window.ReceiveFrom,
		},
	}}
	if options&infoScale != 0 {
		t.msg.SendScale, t.msg.ReceiveScale = scales&15, scales>>4
	}
	if err := errors.Join(t.readNumbers(fd), t.readReceived(fd), t.readSent(fd, tcp)); err != nil {
		return nil, err
	}
	if now, err := get(fd, unix.IPPROTO_TCP, unix.TCP_INFO, 8); err != nil || len(now) < 1 || now[0] != tcp {
		return nil, errors.Join(fmt.Errorf("%w: its state has changed", errMoving), err)
	}
	return t, nil
}

func (t *tcpState) readNumbers(fd int) error {
	for _, o := range []struct {
		level, name int
		to          *uint32
	}{
		{unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, &t.msg.Timestamp},
		{unix.IPPROTO_TCP, unix.TCP_MAXSEG, &t.msg.Mss}, // in repair mode: what the other end announced
		{unix.SOL_SOCKET, unix.SO_SNDBUF, &t.msg.SendBuffer},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, &t.msg.ReceiveBuffer},
	} {
		n, err := unix.GetsockoptInt(fd, o.level, o.name)
		if err != nil {
			return fmt.Errorf("getsockopt(%d, %d): %w", o.level, o.name, err)
		}
		*o.to = uint32(n)
	}
	t.msg.ReadAt = time.Now().UnixNano()
	// The program ended its reading, not the other end its stream.
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if _, err := unix.Poll(p, 0); err != nil {
		return os.NewSyscallError("poll", err)
	}
	t.msg.ReceiveShut = p[0].Revents&unix.POLLRDHUP != 0 && !t.msg.ReceiveEnded
	return nil
}

// readReceived copies what the program has not read.
func (t *tcpState) readReceived(fd int) (failed error) {
	n, err := t.selectQueue(fd, tcprepair.Receive, &t.msg.ReceiveNext, t.msg.ReceiveEnded, unix.TIOCINQ)
	if err != nil {
		return err
	}
	// From where a program peeks (since Linux 6.9) has no effect on us.
	if off, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soPeekOff); err == nil && off >= 0 {
		back, err := peekFrom(fd, -1)
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, back()) }()
	}
	return t.readAround(fd, n)
}

// readSent copies what the program has written and nobody has acknowledged.
func (t *tcpState) readSent(fd int, tcp uint8) error {
	n, err := t.selectQueue(fd, tcprepair.Send, &t.msg.SendNext, t.msg.SendEnded, unix.TIOCOUTQ)
	if err != nil {
		return err
	}
	unsent, err := unix.IoctlGetInt(fd, siocOutQNSD)
	if err != nil {
		return os.NewSyscallError("ioctl(SIOCOUTQNSD)", err)
	}
	t.sendEndArrived = tcp == stateFinWait2
	if t.msg.SendEnded && !t.sendEndArrived {
		// The end of the stream counts for one.
		n, unsent = n-1, max(unsent-1, 0)
	}
	if n < 0 || unsent > n {
		return fmt.Errorf("%w: the kernel tells of %d bytes that were not acknowledged, %d of them not sent", errMoving, n, unsent)
	}
	t.msg.Unsent = uint32(unsent)
	t.send, err = peekTCP(fd, n)
	return err
}

// siocOutQNSD is SIOCOUTQNSD of include/uapi/linux/sockios.h: what was never
// transmitted.
const siocOutQNSD = 0x894B

// selectQueue selects a queue and reads the number behind its last byte and the
// queue's length.
func (t *tcpState) selectQueue(fd, queue int, next *uint32, ended bool, length uint) (int, error) {
	if err := tcprepair.Select(fd, queue); err != nil {
		return 0, err
	}
	var err error
	if *next, err = tcprepair.Sequence(fd); err != nil {
		return 0, err
	}
	if ended {
		*next--
	}
	n, err := unix.IoctlGetInt(fd, length)
	return n, os.NewSyscallError("ioctl", err)
}

// peekTCP copies the selected queue, which has n bytes.
func peekTCP(fd, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	buf := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, os.NewSyscallError("recv(MSG_PEEK)", err)
	}
	if got != n {
		return nil, fmt.Errorf("%w: %d of %d bytes", errMoving, n-got, n)
	}
	return buf, nil
}

// errMoving: a queue changed while it was read.
var errMoving = errors.New("a queue changes while it is read")
