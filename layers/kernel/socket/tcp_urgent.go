// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// A byte out of band (MSG_OOB, tcp(7)) has a place in the stream, the mark, at which
// recv(2) stops. Unless SO_OOBINLINE is set it is not read with what is around it, and
// TIOCINQ counts what is before the mark. There is one mark at a time.
//
// Repair mode has no way to set it (net/ipv4/tcp_input.c, tcp_check_urg: the pointer
// must not be behind what was received). So what is behind the mark is not put back
// into the queue: it arrives once more, in segments that say where the byte is
// (tcp_forge.go).
//
// The mark of what was sent could be set, also in repair mode: send(2) with MSG_OOB
// does (net/ipv4/tcp.c, tcp_mark_urg). But no call tells where it is (snd_up of struct
// tcp_sock), only the segments that are transmitted with it, and a source transmits
// none any more.

// readAround copies what was received: n bytes, or what of it is before the mark.
func (t *tcpState) readAround(fd, n int) error {
	inline, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_OOBINLINE)", err)
	}
	at, err := unix.IoctlGetInt(fd, unix.SIOCATMARK)
	if err != nil {
		return os.NewSyscallError("ioctl(SIOCATMARK)", err)
	}
	if inline != 0 {
		return t.readInline(fd, n, at != 0)
	}
	before := make([]byte, n)
	if at == 0 && n > 0 {
		if before, err = peekTCP(fd, n); err != nil {
			return err
		}
	}
	t.receive = before
	// Not read yet: the byte. EAGAIN: it has not come yet, and will come with its mark.
	one := make([]byte, 1)
	got, _, err := unix.Recvfrom(fd, one, unix.MSG_OOB|unix.MSG_PEEK|unix.MSG_DONTWAIT)
	unread := err == nil && got == 1
	if errors.Is(err, unix.EAGAIN) || !unread && n == 0 && at == 0 {
		return nil
	}
	behind, err := peekBehind(fd, n)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && (unread || at != 0): // before Linux 6.9
		return &refusal{"TCP connection", "a byte out of band (MSG_OOB) was not read, and what was sent behind it only Linux 6.9 lets others see", "let the program read it, then try again"}
	case errors.Is(err, unix.EOPNOTSUPP), err == nil && !unread && at == 0 && len(behind) == 0:
		return nil // there is no mark
	case err != nil:
		return err
	}
	// Of a mark the count still ends there.
	if now, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || now != n {
		return errors.Join(fmt.Errorf("%w: %d bytes, then %d", errMoving, n, now), err)
	}
	t.msg.Urgent, t.msg.UrgentRead = uint32(n)+1, !unread
	t.receive = append(append(t.receive, one[0]), behind...)
	return nil
}

// readInline is readAround where the byte is read with the others: recv(2) stops
// before it, unless it begins there.
func (t *tcpState) readInline(fd, n int, at bool) error {
	if n == 0 {
		return nil
	}
	buf := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return os.NewSyscallError("recv(MSG_PEEK)", err)
	}
	t.receive = buf[:got]
	if at {
		t.msg.Urgent = 1
	}
	if got == n {
		return nil
	}
	behind, err := peekBehind(fd, got)
	if errors.Is(err, unix.EOPNOTSUPP) { // before Linux 6.9
		return &refusal{"TCP connection", "a byte out of band (MSG_OOB) was not read, and what was sent behind it only Linux 6.9 lets others see", "let the program read it, then try again"}
	}
	if err != nil {
		return err
	}
	if got+len(behind) != n || at {
		return fmt.Errorf("%w: %d bytes and %d behind a mark, instead of %d", errMoving, got, len(behind), n)
	}
	t.msg.Urgent, t.receive = uint32(got)+1, append(t.receive, behind...)
	return nil
}

// peekBehind copies what is in the queue from an offset on.
func peekBehind(fd, offset int) (out []byte, failed error) {
	back, err := peekFrom(fd, offset)
	if err != nil {
		return nil, err
	}
	defer func() { failed = errors.Join(failed, back()) }()
	for buf := make([]byte, 64<<10); ; buf = make([]byte, 2*len(buf)) {
		got, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil, nil
		}
		if err != nil || got < len(buf) {
			return buf[:max(got, 0)], os.NewSyscallError("recv(MSG_PEEK)", err)
		}
		// It moves with each call.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPeekOff, offset); err != nil {
			return nil, os.NewSyscallError("setsockopt(SO_PEEK_OFF)", err)
		}
	}
}

// beforeMark is how much of what was received was before the byte out of band: all of
// it, if there is none.
func (a *arrival) beforeMark() int {
	if u := a.msg.Tcp.Urgent; u > 0 && int(u) <= len(a.stream) {
		return int(u) - 1
	}
	return len(a.stream)
}

// checkUrgent: the byte is in the queue.
func checkUrgent(t *state.TcpConnection, received int) error {
	if int64(t.Urgent) > int64(received) {
		return fmt.Errorf("byte %d of %d that were received is out of band", t.Urgent, received)
	}
	return nil
}
