// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// rising is a connection that was made in repair mode: nothing was transmitted
// for it, and nothing will be if the import fails. It begins to work at the
// commit (begin).
type rising struct {
	own  *target.Duplicate
	msg  *state.Socket
	what string
	// push is what was transmitted and not acknowledged, to be transmitted again
	// at once; unsent comes behind it.
	push, unsent []byte
	// rehearsed is how many bytes are in front of push that the other end has
	// acknowledged already (rehearse).
	rehearsed int
	// behind is what was received from the byte out of band on.
	behind       []byte
	acknowledged uint32 // where the queue of what was sent begins
	// ended: the end of the stream is in the queue already.
	ended bool
	net   string // path of its network namespace
	// bound is called when it is bound to a device.
	bound func()
	// limits of its buffers by their bits of SO_BUF_LOCK, in bytes.
	limits map[int]uint32
	// standIn is the other end, if its program has closed it; nil otherwise.
	standIn *standIn
}

// later are the options that would get into the way of building, see begin.
func later(o *state.SocketOption) bool {
	switch {
	case o.Level == unix.SOL_SOCKET:
		return o.Name == unix.SO_SNDBUF || o.Name == unix.SO_RCVBUF || o.Name == unix.SO_BINDTODEVICE
	case o.Level == unix.IPPROTO_IP: // by it the kernel would let a connection have an address that is not there
		return o.Name == unix.IP_FREEBIND
	case o.Level == unix.IPPROTO_IPV6:
		return o.Name == unix.IPV6_FREEBIND
	case o.Level == unix.IPPROTO_TCP:
		switch o.Name {
		case unix.TCP_WINDOW_CLAMP, unix.TCP_NODELAY, unix.TCP_CORK, unix.TCP_NOTSENT_LOWAT:
			return true
		}
	}
	return false
}

// connections makes connections in repair mode. The task makes and binds the
// sockets, with the rights of the live spec's user; what needs CAP_NET_ADMIN is
// done by the engine on the same sockets. What the task does it does for all of them
// together: a remote batch costs more than what is in it.
func (b *builder) connections(list []*arrival, descs []uint64) (all []*rising, err error) {
	defer func() {
		if err != nil {
			for _, r := range all {
				err = errors.Join(err, r.own.Close())
			}
			all = nil
		}
	}()
	messages := make([]*state.Socket, len(list))
	for i, a := range list {
		messages[i] = a.msg
	}
	fds, err := b.bare(messages...)
	if err != nil {
		return nil, err
	}
	for i, a := range list {
		own, err := b.task.Duplicate(fds[i])
		if err != nil {
			return all, err
		}
		r := &rising{own: own, msg: a.msg, what: summary(a.msg), acknowledged: a.sendFrom()}
		all = append(all, r)
		if _, err = tcprepair.Enter(r.fd()); err == nil {
			r.rehearsed = rehearsal(a)
			err = setSequences(r.fd(), a.sendFrom()-uint32(r.rehearsed), a.receiveFrom())
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", r.what, err)
		}
	}
	if err := b.bind(fds, messages); err != nil {
		return all, err
	}
	for i, r := range all {
		if err = r.connect(); err == nil {
			err = r.fill(list[i])
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", r.what, explain(err))
		}
	}
	return all, b.placeTCP(descs, fds, messages)
}

// connectLater makes a socket that connects at the commit. It gets its port
// although others have it, too: connections to different places may share one.
func (b *builder) connectLater(desc uint64, m *state.Socket) (*connecting, error) {
	fd, own, err := b.claim(m)
	if err != nil {
		return nil, err
	}
	err = tcprepair.Leave(int(own.Fd()), reuseAddress(m), false)
	if err == nil {
		err = b.placeTCP([]uint64{desc}, []int{fd}, []*state.Socket{m})
	}
	for _, o := range m.Option {
		if err == nil && later(o) {
			err = setOwn(int(own.Fd()), o)
		}
	}
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	return &connecting{own, m}, nil
}

// claim makes a socket and binds it in repair mode, in which the kernel gives it
// any port that its connection can be told by.
func (b *builder) claim(m *state.Socket) (fd int, own *target.Duplicate, err error) {
	fds, err := b.bare(m)
	if err != nil {
		return 0, nil, err
	}
	if own, err = b.task.Duplicate(fds[0]); err != nil {
		return 0, nil, err
	}
	if _, err = tcprepair.Enter(int(own.Fd())); err == nil {
		err = b.bind(fds, []*state.Socket{m})
	}
	if err != nil {
		return 0, nil, errors.Join(err, own.Close())
	}
	return fds[0], own, nil
}

// bind gives sockets their addresses.
func (b *builder) bind(fds []int, list []*state.Socket) error {
	p := b.task.Plan()
	for i, m := range list {
		if len(m.Local) > 0 {
			b.asBinder(p, m)
			p.Call(bind(p, fds[i], m.Family, m.Local))
			p.AsRoot()
		}
	}
	return explain(p.Run())
}

// placeTCP sets the flags and gives the sockets their numbers.
func (b *builder) placeTCP(descs []uint64, fds []int, list []*state.Socket) error {
	p := b.task.Plan()
	for i, m := range list {
		if m.PeekOffset > 0 {
			setInt(p, fds[i], soPeekOff, int(m.PeekOffset-1))
		}
		p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fds[i]), unix.F_SETFL, uint64(m.Flags&unix.O_NONBLOCK)))
		if err := p.Place(descs[i], fds[i]); err != nil {
			return err
		}
	}
	return p.Run()
}

// sendFrom and receiveFrom are where the queues of a connection begin.
func (a *arrival) sendFrom() uint32    { return a.msg.Tcp.SendNext - uint32(len(a.send)) }
func (a *arrival) receiveFrom() uint32 { return a.msg.Tcp.ReceiveNext - uint32(len(a.stream)) }

// makeWay removes what is left in the network namespace of the connections that
// are to be made: that of a container which was ended, or of a copy of it. The
// other ends of those to the outside are not here.
func makeWay(t *target.Task, list []*arrival) error {
	return target.InNamespace(t.Proc.Path("ns/net"), func() error {
		for _, a := range list {
			m := a.msg
			local, remote := endpoint(m.Family, m.Local), endpoint(m.Family, m.Remote)
			if !local.IsValid() || !remote.IsValid() {
				return fmt.Errorf("addresses of %d and %d bytes", len(m.Local), len(m.Remote))
			}
			e := ends{local, remote}
			err := evict(e, false)
			if !m.Tcp.Outside {
				err = errors.Join(err, evict(e.reversed(), false))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// bare makes sockets with the options that have to be there before they have an
// address. Their numbers are nobody's.
func (b *builder) bare(list ...*state.Socket) (fds []int, err error) {
	p := b.task.Plan()
	for _, m := range list {
		p.AsUser(m.Uid, m.Gid)
		fd := p.Open(tracer.Syscall(unix.SYS_SOCKET, uint64(m.Family), uint64(m.Type|unix.SOCK_CLOEXEC), uint64(m.Protocol)))
		p.AsRoot()
		for _, o := range m.Option {
			if !later(o) {
				setOption(p, fd, o)
			}
		}
		fds = append(fds, p.DupAbove(fd, b.task.Table.Aside()))
		p.Close(fd)
	}
	return fds, p.Run()
}

// fd of the engine's duplicate.
func (r *rising) fd() int { return int(r.own.Fd()) }

// agreed are the options of the handshake.
func agreed(t *state.TcpConnection) tcprepair.Options {
	return tcprepair.Options{
		MSS: t.Mss, SACK: t.Sack, Timestamps: t.Timestamps,
		SendScale: t.SendScale, ReceiveScale: t.ReceiveScale,
	}
}

func setSequences(fd int, send, receive uint32) error {
	return errors.Join(
		tcprepair.Select(fd, tcprepair.Send), tcprepair.SetSequence(fd, send),
		tcprepair.Select(fd, tcprepair.Receive), tcprepair.SetSequence(fd, receive),
	)
}

// connect makes it connected, without a handshake. How large its segments are the
// kernel computes here, from what a program has set and not from the option that is
// set behind (net/ipv4/tcp_output.c, tcp_connect_init): without it they would have 536
// bytes for ever.
func (r *rising) connect() error {
	t := r.msg.Tcp
	if err := unix.SetsockoptInt(r.fd(), unix.IPPROTO_TCP, unix.TCP_MAXSEG, int(segmentLimit(t))); err != nil {
		return fmt.Errorf("setsockopt(TCP_MAXSEG): %w", err)
	}
	if err := rawConnect(r.fd(), sockaddr(r.msg.Family, r.msg.Remote)); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := unix.SetsockoptInt(r.fd(), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 0); err != nil { // nobody has set it
		return fmt.Errorf("setsockopt(TCP_MAXSEG): %w", err)
	}
	if err := tcprepair.SetOptions(r.fd(), agreed(t)); err != nil {
		return err
	}
	if !t.Timestamps {
		return nil
	}
	if err := unix.SetsockoptInt(r.fd(), unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, int(int32(r.now()))); err != nil {
		return fmt.Errorf("setsockopt(TCP_TIMESTAMP): %w", err)
	}
	return nil
}

// timestampsSize is what time stamps take of a segment, in bytes.
const timestampsSize = 12

// segmentLimit is the value of TCP_MAXSEG for segments as the source's were.
func segmentLimit(t *state.TcpConnection) uint32 {
	n := t.Segment
	if t.Timestamps {
		n += timestampsSize
	}
	if t.Segment == 0 || n > t.Mss {
		n = t.Mss
	}
	return min(max(n, minMSS), maxMSS)
}

// What TCP_MAXSEG takes: TCP_MIN_MSS and MAX_TCP_WINDOW of include/net/tcp.h.
const (
	minMSS = 88
	maxMSS = 32767
)

// fill puts the queues back.
func (r *rising) fill(a *arrival) error {
	t := r.msg.Tcp
	if int(t.Unsent) > len(a.send) {
		return fmt.Errorf("%d bytes that were not sent, in a queue of %d", t.Unsent, len(a.send))
	}
	if err := r.widen(a); err != nil {
		return err
	}
	if err := tcprepair.Select(r.fd(), tcprepair.Receive); err != nil {
		return err
	}
	if err := checkUrgent(t, len(a.stream)); err != nil {
		return err
	}
	mark := a.beforeMark()
	r.behind = a.stream[mark:]
	if err := sendAll(r.fd(), a.stream[:mark], 0); err != nil {
		return fmt.Errorf("what was received and not read: %w", err)
	}
	if err := r.fillSent(a.send); err != nil {
		return fmt.Errorf("what was sent and not acknowledged: %w", err)
	}
	w := t.Window
	from := notAfter(w.GetReceiveFrom(), t.ReceiveNext-uint32(len(r.behind)))
	err := tcprepair.SetWindow(r.fd(), tcprepair.Window{
		SendUpdate: w.GetSendUpdate(), Send: w.GetSend(), LargestSend: max(w.GetLargestSend(), w.GetSend()),
		Receive: w.GetReceive() + w.GetReceiveFrom() - from, ReceiveFrom: from, // which ends where it ended
	})
	if err != nil {
		return err
	}
	if o := find(r.msg.Option, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP); o != nil {
		if err := setOwn(r.fd(), o); err != nil {
			return err
		}
	}
	return tcprepair.Select(r.fd(), tcprepair.NoQueue)
}

// notAfter is n, but no sequence number behind limit: the end of the other
// stream, which counts for one, has not arrived again yet.
func notAfter(n, limit uint32) uint32 {
	if int32(n-limit) > 0 {
		return limit
	}
	return n
}

// widen makes room for the queues, until begin. A queue takes more memory than
// it has bytes.
func (r *rising) widen(a *arrival) error {
	for name, n := range map[int]int{unix.SO_RCVBUFFORCE: len(a.stream), unix.SO_SNDBUFFORCE: len(a.send) + r.rehearsed} {
		if err := unix.SetsockoptInt(r.fd(), unix.SOL_SOCKET, name, min(4*n+1<<20, 1<<30)); err != nil {
			return fmt.Errorf("setsockopt(%d): %w", name, err)
		}
	}
	return nil
}

// burst is how many segments a new connection may transmit at once, a little
// less than the kernel's initial window of 10 (TCP_INIT_CWND of
// include/net/tcp.h).
const burst = 8

// fillSent decides how what was transmitted and not acknowledged is transmitted
// again. In repair mode the kernel queues it as transmitted; then it waits for
// an acknowledgment, for a second if the other end has none to give. What may
// be transmitted at once is not queued now but written at the commit, so that it
// is on its way with the first step of the copy. More than that must be in the
// queue: the other end may acknowledge all of it, and the kernel drops
// acknowledgments of what it has not transmitted.
func (r *rising) fillSent(queue []byte) error {
	t := r.msg.Tcp
	sent := queue[:len(queue)-int(t.Unsent)]
	r.unsent = queue[len(sent):]
	if r.rehearsed > 0 {
		r.push = sent
		return r.fillRehearsal()
	}
	if segment, err := segmentSize(r.fd()); err != nil || len(sent) <= burst*segment {
		r.push = sent
		return err
	}
	return r.queueSent(sent)
}

// queueSent queues data as transmitted, in repair mode.
func (r *rising) queueSent(sent []byte) error {
	if err := tcprepair.Select(r.fd(), tcprepair.Send); err != nil {
		return err
	}
	if err := sendAll(r.fd(), sent, 0); err != nil {
		return err
	}
	if r.msg.Tcp.SendEnded && len(r.unsent) == 0 {
		r.ended = true
		return unix.Shutdown(r.fd(), unix.SHUT_WR)
	}
	return nil
}

// segmentSize is tcpi_snd_mss of struct tcp_info: what a segment carries.
func segmentSize(fd int) (int, error) {
	b, err := get(fd, unix.IPPROTO_TCP, unix.TCP_INFO, 20)
	if err != nil || len(b) < 20 {
		return 0, fmt.Errorf("getsockopt(TCP_INFO): %d bytes: %w", len(b), err)
	}
	return int(binary.LittleEndian.Uint32(b[16:])), nil
}

// sendPart is what is written at once in repair mode, where each call makes one
// buffer of the kernel's, whose size is limited (MAX_SKB_FRAGS pages).
const sendPart = 32 << 10

// sendAll writes to a socket without waiting; flags are for the last part.
func sendAll(fd int, b []byte, flags int) error { return sendParts(fd, b, sendPart, flags) }

// sendSegments is sendAll for what is transmitted at once: in no more segments than
// it takes. The kernel transmits what is left of a part as one of its own, and has
// a window that counts them; and it believes no acknowledgment of what it has not
// transmitted.
func sendSegments(fd int, b []byte, flags int) error {
	if len(b) == 0 {
		return nil
	}
	segment, err := segmentSize(fd)
	if err != nil {
		return err
	}
	return sendParts(fd, b, wholeSegments(segment), flags)
}

// wholeSegments is about sendPart.
func wholeSegments(segment int) int {
	if segment <= 0 {
		return sendPart
	}
	return max(sendPart/segment, 1) * segment
}

func sendParts(fd int, b []byte, part, flags int) error {
	for len(b) > 0 {
		n, last := min(len(b), part), 0
		if n == len(b) {
			last = flags
		}
		got, err := unix.SendmsgN(fd, b[:n], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL|last)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%d bytes could not be queued: %w", len(b), err)
		}
		b = b[got:]
	}
	return nil
}

// bufferLimits reads how large the kernel may make buffers in the network
// namespace of the task, or a program its own: no image gets more. By the bits
// of SO_BUF_LOCK, in bytes.
func bufferLimits(t *target.Task) (map[int]uint32, error) {
	out := map[int]uint32{}
	err := target.InNamespace(t.Proc.Path("ns/net"), func() error {
		for bit, names := range map[int][2]string{1: {"ipv4/tcp_wmem", "core/wmem_max"}, 2: {"ipv4/tcp_rmem", "core/rmem_max"}} {
			for i, name := range names {
				b, err := os.ReadFile("/proc/sys/net/" + name)
				if errors.Is(err, fs.ErrNotExist) && i == 1 {
					continue // not shown in every namespace
				}
				fields := strings.Fields(string(b))
				if err != nil || len(fields) == 0 {
					return fmt.Errorf("limits of buffers: %s: %q: %w", name, b, err)
				}
				n, err := strconv.ParseUint(fields[len(fields)-1], 10, 31)
				if err != nil {
					return fmt.Errorf("limits of buffers: %s: %w", name, err)
				}
				out[bit] = max(out[bit], uint32(min(n<<i, math.MaxInt32))) // a program's size is doubled
			}
		}
		return nil
	})
	return out, err
}

// find looks for an option.
func find(list []*state.SocketOption, level, name uint32) *state.SocketOption {
	for _, o := range list {
		if o.Level == level && o.Name == name {
			return o
		}
	}
	return nil
}
