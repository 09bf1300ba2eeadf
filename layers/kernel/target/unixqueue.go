// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// UnixMessage is a message in the queue of a unix socket, or a piece of a stream
// that came with the same credentials and at whose end descriptors came, if any.
type UnixMessage struct {
	Data []byte
	// Offset of the data in the queue, in bytes.
	Offset int
	// Sender is the name of the socket that sent a datagram, behind sa_family;
	// empty if it has none.
	Sender []byte
	// Rights are descriptors of the engine's, closed when the function that is
	// given them returns.
	Rights []int
	// Credentials as the engine sees them, nil if the socket does not ask for any
	// (SO_PASSCRED).
	Credentials *unix.Ucred
}

const (
	// pieceBytes is how much of a stream one message has at most.
	pieceBytes = 1 << 20
	// longestMessage that is looked for: what wmem_max allows by far.
	longestMessage = 2 << 20
	// controlBytes holds SCM_MAX_FD descriptors, credentials, a security label
	// and time stamps.
	controlBytes = 4096
	soPeekOff    = 42
	// scmPidfd is SCM_PIDFD of include/linux/socket.h (Linux 6.5).
	scmPidfd = 4
)

// ErrUnseen says that a part of a queue is not shown by peeking.
var ErrUnseen = errors.New("a part of the queue cannot be seen: it was sent out of band (MSG_OOB)")

// PeekUnix calls fn with everything that waits in a unix socket, which must not
// listen, and takes nothing. Messages behind the first one are seen by means of
// SO_PEEK_OFF, which is set for the moment: it means nothing to a program that
// does not peek itself, should the engine die meanwhile.
func PeekUnix(fd int, fn func(*UnixMessage) error) (err error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_TYPE)", err)
	}
	was, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soPeekOff)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_PEEK_OFF)", err)
	}
	p := peeker{fd: fd}
	defer func() { err = errors.Join(err, p.from(was)) }()
	if typ == unix.SOCK_STREAM {
		return p.stream(fn)
	}
	if !p.polls(unix.POLLIN) {
		return nil
	}
	p.buf = make([]byte, longestMessage)
	return p.messages(typ == unix.SOCK_SEQPACKET, fn)
}

// peeker looks into one queue.
type peeker struct {
	fd  int
	buf []byte
}

// from sets where the next look begins.
func (p *peeker) from(offset int) error {
	return os.NewSyscallError("setsockopt(SO_PEEK_OFF)", unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, soPeekOff, offset))
}

// messages looks at datagrams and packets, one after another.
func (p *peeker) messages(packets bool, fn func(*UnixMessage) error) error {
	if err := p.from(0); err != nil {
		return err
	}
	offset := 0
	for {
		m, err := p.look(len(p.buf))
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		if packets && len(m.Data) == 0 && p.polls(unix.POLLRDHUP) {
			return nil // the end of a closed connection
		}
		m.Offset = offset
		offset += len(m.Data)
		if err := m.pass(fn); err != nil {
			return err
		}
	}
}

func (p *peeker) polls(event int16) bool {
	f := []unix.PollFd{{Fd: int32(p.fd), Events: event}}
	n, err := unix.Poll(f, 0)
	return err == nil && n > 0 && f[0].Revents&event != 0
}

// stream looks at the pieces of a stream. A look ends behind a piece that came
// with descriptors, and where the credentials change; it may begin long before
// the piece.
func (p *peeker) stream(fn func(*UnixMessage) error) error {
	total, err := unix.IoctlGetInt(p.fd, unix.TIOCINQ)
	if err != nil || total == 0 {
		return os.NewSyscallError("ioctl(SIOCINQ)", err)
	}
	if err := p.guard(total); err != nil {
		return err
	}
	defer p.unmap()
	for offset := 0; offset < total; {
		m, err := p.lookAt(offset, total-offset)
		if errors.Is(err, unix.EAGAIN) || err == nil && len(m.Data) == 0 {
			return fmt.Errorf("%w: %d of %d bytes", ErrUnseen, total-offset, total)
		}
		if err != nil {
			return err
		}
		offset += len(m.Data)
		if err := p.pieces(m, fn); err != nil {
			return err
		}
	}
	return nil
}

// pieces hands a look over: what is before a piece that came with descriptors,
// then the piece.
func (p *peeker) pieces(m *UnixMessage, fn func(*UnixMessage) error) error {
	plain := m.Data
	if len(m.Rights) > 0 {
		n, err := p.before(m.Offset, len(m.Data))
		if err != nil {
			m.close()
			return err
		}
		plain = m.Data[:n]
		rest := *m
		rest.Data, rest.Offset = m.Data[n:], m.Offset+n
		defer func() { rest.close() }()
		m.Rights = nil
		if err := p.plain(m, plain, fn); err != nil {
			return err
		}
		return rest.pass(fn)
	}
	return p.plain(m, plain, fn)
}

func (p *peeker) plain(m *UnixMessage, b []byte, fn func(*UnixMessage) error) error {
	for at := 0; at < len(b); at += pieceBytes {
		part := *m
		part.Data, part.Offset = b[at:min(at+pieceBytes, len(b))], m.Offset+at
		if err := part.pass(fn); err != nil {
			return err
		}
	}
	return nil
}

// before returns how much there is before the last piece of a look of n bytes: a
// look into memory that ends one byte too early stops before it. (The kernel
// copies a piece whole or not at all, unix_stream_read_generic of
// net/unix/af_unix.c. Merely to ask for less does not help: it goes on to the
// next piece that came with descriptors.)
func (p *peeker) before(offset, n int) (int, error) {
	if err := p.from(offset); err != nil {
		return 0, err
	}
	guard := len(p.buf) - os.Getpagesize()
	iov := unix.Iovec{Base: &p.buf[guard-(n-1)]}
	iov.SetLen(n)
	h := unix.Msghdr{Iov: &iov}
	h.SetIovlen(1)
	got, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case e == unix.EFAULT:
		return 0, nil
	case e != 0:
		return 0, os.NewSyscallError("recvmsg(MSG_PEEK)", e)
	case int(got) >= n:
		return 0, fmt.Errorf("a look of %d bytes into memory of %d has succeeded", n, n-1)
	}
	return int(got), nil
}

// guard makes the buffer one that ends at a page without access.
func (p *peeker) guard(n int) error {
	page := os.Getpagesize()
	size := (n + 2*page - 1) &^ (page - 1)
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	p.buf = b
	if err := unix.Mprotect(b[size-page:], unix.PROT_NONE); err != nil {
		p.unmap()
		return os.NewSyscallError("mprotect", err)
	}
	return nil
}

func (p *peeker) unmap() { _ = unix.Munmap(p.buf) }

func (p *peeker) lookAt(offset, n int) (*UnixMessage, error) {
	if err := p.from(offset); err != nil {
		return nil, err
	}
	m, err := p.look(n)
	if m != nil {
		m.Offset = offset
	}
	return m, err
}

// look peeks once.
func (p *peeker) look(n int) (*UnixMessage, error) {
	var control [controlBytes]byte
	var name [unix.SizeofSockaddrAny]byte
	iov := unix.Iovec{Base: &p.buf[0]}
	iov.SetLen(n)
	h := unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov, Control: &control[0]}
	h.SetIovlen(1)
	h.SetControllen(len(control))
	got, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if e == unix.EAGAIN {
		return nil, e
	}
	if e != 0 {
		return nil, os.NewSyscallError("recvmsg(MSG_PEEK)", e)
	}
	m := &UnixMessage{Data: slices.Clone(p.buf[:got])}
	if h.Namelen > 2 {
		m.Sender = slices.Clone(name[2:min(int(h.Namelen), len(name))])
	}
	if err := m.control(control[:h.Controllen]); err != nil {
		m.close()
		return nil, err
	}
	if h.Flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		m.close()
		return nil, fmt.Errorf("a message is longer than %d bytes, or more came with it than the engine can take (its limit of open files?)", len(p.buf))
	}
	return m, nil
}

// control takes what came with a message.
func (m *UnixMessage) control(b []byte) error {
	list, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return fmt.Errorf("what came with a message: %w", err)
	}
	for i := range list {
		c := &list[i]
		switch {
		case c.Header.Level != unix.SOL_SOCKET:
		case c.Header.Type == unix.SCM_RIGHTS:
			for b := c.Data; len(b) >= 4; b = b[4:] {
				m.Rights = append(m.Rights, int(int32(binary.NativeEndian.Uint32(b))))
			}
		case c.Header.Type == scmPidfd && len(c.Data) >= 4: // made for us by this look
			_ = unix.Close(int(int32(binary.NativeEndian.Uint32(c.Data))))
		case c.Header.Type == unix.SCM_CREDENTIALS && len(c.Data) >= unix.SizeofUcred:
			u := *(*unix.Ucred)(unsafe.Pointer(&c.Data[0]))
			m.Credentials = &u
		}
	}
	return nil
}

// pass hands the message over and closes what came with it.
func (m *UnixMessage) pass(fn func(*UnixMessage) error) error {
	defer m.close()
	return fn(m)
}

func (m *UnixMessage) close() {
	for _, fd := range m.Rights {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	m.Rights = nil
}

// PeekSender asks the process itself who sent the message at an offset in the
// queue of its unix socket: of somebody who has ended nobody else is told the
// process id as the container numbers it. Nothing is taken, and no descriptor
// arrives, as the memory for what comes with the message has no room for any.
func (p *Process) PeekSender(d *Descriptor, offset int) (*unix.Ucred, error) {
	own, err := p.Open(d)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	peek := peeker{fd: int(own.Fd())}
	was, err := unix.GetsockoptInt(peek.fd, unix.SOL_SOCKET, soPeekOff)
	if err == nil {
		err = peek.from(offset)
	}
	if err != nil {
		return nil, err
	}
	u, err := p.recvSender(d.FD, p.by(d.Thread))
	return u, errors.Join(err, peek.from(was))
}

// recvSender has a thread look that has the socket in its table.
func (p *Process) recvSender(fd int, th *tracer.Thread) (*unix.Ucred, error) {
	if th == nil {
		return nil, tracer.ErrExited
	}
	sc, err := p.Traced.Scratch()
	if err != nil {
		return nil, err
	}
	defer sc.Release(sc.Mark())
	room := unix.CmsgLen(unix.SizeofUcred)
	// The control message, a byte of the message, struct iovec, struct user_msghdr.
	control, err := sc.Put(make([]byte, unix.CmsgSpace(unix.SizeofUcred)))
	if err != nil {
		return nil, err
	}
	data, err := sc.Put(make([]byte, 8))
	if err != nil {
		return nil, err
	}
	iov, err := sc.Put(words(data, 1))
	if err != nil {
		return nil, err
	}
	hdr, err := sc.Put(words(0, 0, iov, 1, control, uint64(room), 0))
	if err != nil {
		return nil, err
	}
	calls := []tracer.Call{tracer.Syscall(unix.SYS_RECVMSG, uint64(fd), hdr, unix.MSG_PEEK|unix.MSG_DONTWAIT)}
	if err = p.Traced.Run(th, calls); err == nil {
		err = tracer.Check(calls)
	}
	if err != nil {
		return nil, fmt.Errorf("look into the queue of descriptor %d as pid %d: %w", fd, p.Pid, err)
	}
	b := make([]byte, room)
	if err := p.Traced.Read(control, b); err != nil {
		return nil, err
	}
	list, err := unix.ParseSocketControlMessage(b)
	if err != nil || len(list) != 1 || list[0].Header.Type != unix.SCM_CREDENTIALS || len(list[0].Data) < unix.SizeofUcred {
		return nil, errors.Join(fmt.Errorf("descriptor %d of pid %d: the kernel does not tell who sent a message", fd, p.Pid), err)
	}
	u := *(*unix.Ucred)(unsafe.Pointer(&list[0].Data[0]))
	return &u, nil
}

func words(list ...uint64) []byte {
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
