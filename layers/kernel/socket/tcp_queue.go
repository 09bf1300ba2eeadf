// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/packet"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/spec/state"
)

// A socket that was made in repair mode cannot be put into the queue of a listener:
// there are only those whose handshake the kernel has seen. So it sees one: the
// client's segments are made here (package packet). What has to come out is that the
// kernel answers with the sequence number that the client knows. It chooses one by
// itself, unless it still remembers a connection with the same addresses: then the
// new one begins 65,537 numbers behind the end of the old one (net/ipv4/
// tcp_minisocks.c, tcp_timewait_state_process; RFC 6191). A connection that ends
// there is made in repair mode, and ended, before:
//
//	repair mode   a connection that has sent its FIN, of which nothing is transmitted
//	FIN, ACK      TIME_WAIT
//	SYN           the listener answers: a segment that the client has had, and drops
//	ACK           the connection waits to be accepted
//	data, FIN     what had been received by it
//
// Timestamps of the connection go on by the clock of this host, which may be behind
// that of the source: their beginnings are secret. The client would drop such
// segments (PAWS, RFC 7323). Then the connection goes on without them, which the
// client is not told of: Linux does not mind.

// twoISN is how far behind the end of the remembered connection, with its FIN, the new
// one begins.
const twoISN = 65535 + 2 + 1

// queuePatience bounds the wait for a segment that the kernel sends, or takes over the
// loopback.
const queuePatience = 500 * time.Millisecond

// expected is a connection that the source will hand on: what arrives for it before
// is kept.
type expected struct{ packets [][]byte }

// maxExpected bounds the packets of one.
const maxExpected = 64

// waits takes a connection of which the source has read everything, nil at their end.
func (p *player) waits(body []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(body) == 0 {
		return p.giveUpWaiting()
	}
	w := &state.WaitingConnection{}
	if err := proto.Unmarshal(body, w); err != nil {
		return err
	}
	e, err := decodeEnds(w.Ends)
	if err != nil {
		return err
	}
	if err := checkWaiting(w); err != nil {
		return fmt.Errorf("TCP connection %s to %s: %w", e.local, e.remote, err)
	}
	if p.injector == nil || p.over || !p.listens(e.local.Port()) {
		return fmt.Errorf("TCP connection %s to %s: nobody listens there", e.local, e.remote)
	}
	err = target.InNamespaceFD(int(p.net.Fd()), "net", func() error { return p.queueUp(e, w) })
	was := p.expected[e.arriving()]
	delete(p.expected, e.arriving())
	if err != nil {
		slog.Warn("a connection that nobody has accepted is lost", "from", e.remote, "to", e.local, "error", err)
		return nil
	}
	p.connections[e.arriving()] = true
	if was != nil {
		for _, b := range was.packets {
			p.arrive(b)
		}
	}
	return nil
}

func checkWaiting(w *state.WaitingConnection) error {
	m := &state.Socket{State: state.SocketState_SOCKET_STATE_CONNECTION, Tcp: w.Tcp}
	if w.Tcp == nil {
		return errors.New("nothing is told of its state")
	}
	return errors.Join(checkTCP(m), checkUrgent(w.Tcp, len(w.Received)))
}

// giveUpWaiting lets the kernel answer for what the source does not hand on. mu is
// held.
func (p *player) giveUpWaiting() error {
	var list []netdrop.Connection
	for c := range p.expected {
		list = append(list, c)
	}
	p.expected = nil
	if len(list) == 0 {
		return nil
	}
	slog.Warn("connections that nobody had accepted are not there any more", "count", len(list))
	return target.InNamespaceFD(int(p.net.Fd()), "net", func() error { return netdrop.Pass(netdrop.Silence{Connections: list}) })
}

// handshake is one that is made anew.
type handshake struct {
	ends
	tcp      *state.TcpConnection
	received []byte
	injector *packet.Injector
	sent     *packet.Capture
	// start is the number of the first byte of received; isn that of this end's SYN.
	start, isn uint32
}

// queueUp must be called in the copy's network namespace.
func (p *player) queueUp(e ends, w *state.WaitingConnection) (err error) {
	t := w.Tcp
	h := &handshake{ends: e, tcp: t, received: w.Received, injector: p.injector, start: t.ReceiveNext - uint32(len(w.Received)), isn: t.SendNext - 1}
	if h.sent, err = packet.OpenSent(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.sent.Close()) }()
	ok, err := h.begin(t.Timestamps)
	if err == nil && !ok && t.Timestamps {
		ok, err = h.begin(false)
	}
	if err != nil || !ok {
		return errors.Join(err, errors.New("this kernel's handshake is another one than that of the source"))
	}
	return h.end()
}

// begin has the kernel answer to a SYN. ok: as the source had.
func (h *handshake) begin(timestamps bool) (ok bool, err error) {
	if err := h.remember(); err != nil {
		return false, err
	}
	if err := h.inject(&segment{sequence: h.start - 1, flags: tcpSYN, window: 65535, options: h.options(timestamps)}); err != nil {
		return false, err
	}
	answer, err := h.answer()
	if err != nil {
		return false, err
	}
	ok = answer.sequence == h.isn && answer.scale == h.tcp.ReceiveScale && answer.timestamps == timestamps &&
		(!timestamps || int32(answer.timestamp-h.tcp.Timestamp) >= 0) // not before the last segment that the client got
	if ok {
		return true, nil
	}
	return false, h.inject(&segment{sequence: h.start, flags: tcpRST})
}

// remember leaves a connection in TIME_WAIT whose successor begins with isn. From the
// moment that there is something that answers for the addresses, it may.
func (h *handshake) remember() error {
	family := uint32(unix.AF_INET6)
	if h.local.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(int(family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	send, receive := h.isn-twoISN, h.start-3
	if _, err := tcprepair.Enter(fd); err != nil {
		return err
	}
	if err := setSequences(fd, send, receive); err != nil {
		return err
	}
	if err := rawAddress(unix.SYS_BIND, fd, sockaddr(family, rawEnd(h.local))); err != nil {
		return explain(fmt.Errorf("bind: %w", err))
	}
	if err := rawConnect(fd, sockaddr(family, rawEnd(h.remote))); err != nil {
		return explain(fmt.Errorf("connect: %w", err))
	}
	if err := errors.Join(tcprepair.Select(fd, tcprepair.Send), unix.Shutdown(fd, unix.SHUT_WR), tcprepair.Select(fd, tcprepair.NoQueue), tcprepair.Leave(fd, 0, false)); err != nil {
		return err
	}
	if err := netdrop.Pass(netdrop.Silence{Connections: []netdrop.Connection{h.arriving()}}); err != nil {
		return err
	}
	if err := h.inject(&segment{sequence: receive, acknowledged: send + 1, flags: tcpFIN | tcpACK, window: 65535}); err != nil {
		return err
	}
	return h.until(stateTimeWait)
}

// until waits for a state of the connection.
func (h *handshake) until(states ...uint8) error {
	for end := time.Now().Add(queuePatience); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		s, err := findInet(h.ends)
		if err != nil {
			return err
		}
		for _, want := range states {
			if s != nil && s.state == want {
				return nil
			}
		}
	}
	return errForged
}

// end completes the handshake, and has arrive what had been received.
func (h *handshake) end() error {
	list := []*segment{{sequence: h.start, flags: tcpACK}}
	for at := 0; at < len(h.received); at += forgedPart {
		part := h.received[at:min(at+forgedPart, len(h.received))]
		list = append(list, &segment{sequence: h.start + uint32(at), flags: tcpACK | tcpPSH, data: part})
	}
	if h.tcp.ReceiveEnded {
		list = append(list, &segment{sequence: h.tcp.ReceiveNext, flags: tcpFIN | tcpACK})
	}
	for _, s := range list {
		s.acknowledged, s.window = h.isn+1, uint16(min(h.tcp.Window.GetSend()>>h.tcp.SendScale, 65535))
		if err := h.inject(s); err != nil {
			return err
		}
	}
	if len(list) == 1 {
		return nil // with TCP_DEFER_ACCEPT it waits for data
	}
	return h.until(stateEstablished, stateCloseWait)
}

func (h *handshake) inject(s *segment) error {
	return h.injector.Forge(h.remote.Addr(), h.local.Addr(), unix.IPPROTO_TCP, s.bytes(h.remote, h.local))
}

// Kinds of TCP options (RFC 9293, 7323, 2018).
const (
	optionNone       = 1
	optionMSS        = 2
	optionScale      = 3
	optionSACK       = 4
	optionTimestamps = 8
)

// options of the client's SYN. A time of 0 is before any other one.
func (h *handshake) options(timestamps bool) []byte {
	t := h.tcp
	b := binary.BigEndian.AppendUint16([]byte{optionMSS, 4}, uint16(t.Mss))
	if t.SendScale|t.ReceiveScale != 0 {
		b = append(b, optionNone, optionScale, 3, byte(t.SendScale))
	}
	if t.Sack {
		b = append(b, optionNone, optionNone, optionSACK, 2)
	}
	if timestamps {
		b = append(b, optionNone, optionNone, optionTimestamps, 10, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	return b
}

// synAck is what the kernel answers to a SYN.
type synAck struct {
	sequence, scale, timestamp uint32
	timestamps                 bool
}

// answer waits for it.
func (h *handshake) answer() (a synAck, err error) {
	for end := time.Now().Add(queuePatience); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		p, ok, err := h.sent.Read()
		if err != nil {
			return a, err
		}
		if !ok {
			continue
		}
		if head, parsed := packet.Parse(p.Data); !parsed || head.Source != h.local || head.Destination != h.remote {
			continue
		}
		if a, ok := parseSynAck(p.Data); ok {
			return a, nil
		}
	}
	return a, errors.New("the kernel does not answer: is the queue of the listener full?")
}

// parseSynAck reads a packet that package packet has parsed.
func parseSynAck(b []byte) (a synAck, ok bool) {
	t := b[40:]
	if b[0]>>4 == 4 {
		t = b[int(b[0]&15)*4:]
	}
	size := int(t[12]>>4) * 4
	if t[13]&(tcpSYN|tcpACK|tcpRST) != tcpSYN|tcpACK || size < 20 || size > len(t) {
		return a, false
	}
	be := binary.BigEndian
	a.sequence = be.Uint32(t[4:])
	for o := t[20:size]; len(o) > 0; {
		if o[0] == optionNone {
			o = o[1:]
			continue
		}
		if o[0] == 0 || len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			break
		}
		switch v := o[2:o[1]]; {
		case o[0] == optionScale && len(v) == 1:
			a.scale = uint32(v[0])
		case o[0] == optionTimestamps && len(v) == 8:
			a.timestamps, a.timestamp = true, be.Uint32(v)
		}
		o = o[o[1]:]
	}
	return a, true
}
