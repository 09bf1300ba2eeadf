// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/packet"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// What reaches a container while it stands still is held: copies are taken
// (package packet) of what its own kernel does not answer (package netdrop, and
// connections that are deaf). In a move they go to the other host as they come,
// which has them arrive there when its sockets stand; if the container runs on they
// arrive here once more. So nobody outside has to send anything again, for which
// TCP would wait 200 ms, and for a new connection a second.
//
//	quiet      SYNs and datagrams to the container's ports are held; the program,
//	           which runs, accepts what waits
//	residual   connections are held, too
//	killed     what still comes here goes after the copy for a while: neighbours may
//	           not have learned yet where it is
type hold struct {
	net     *os.File // network namespace
	capture *packet.Capture
	peer    target.Peer
	silence netdrop.Silence // listeners and datagrams, of which added are ours
	added   netdrop.Silence
	since   time.Time // shortly before that began: a datagram between comes twice
	// doubtful are SYNs that came when new connections began to be dropped: they were
	// answered here or dropped, which is asked at decide.
	doubtful [][]byte
	decide   time.Time
	// unmark undoes what was done to the connections, before they receive again. nil:
	// nothing was.
	unmark func() error

	mu sync.Mutex
	// Below: guarded by mu.
	connections map[netdrop.Connection]bool
	asking      map[asked]bool // new connections of which a SYN is held, mostAsking at most
	heard       bool           // they are known, and deaf
	early       [][]byte       // segments for whatever connection, before that
	earlySize   int            // of it, in bytes
	kept        [][]byte       // all that was held
	size        int            // of it, in bytes
	last        time.Time      // when the last packet was held
	sent        int            // how many of kept the peer has
	lost        int

	wake   *os.File // an eventfd, by which run is told to end
	ended  chan struct{}
	ending sync.Once
}

// maxKept bounds what is held, in bytes; what comes then is lost, as in any
// network.
const maxKept = 64 << 20

// maxEarly bounds what is held before it is known which connections there are: the
// last of it counts.
const maxEarly = 16 << 20

// Quiet is called before the container is stopped: see hold and orphans. A program
// that does not accept its connections soon is stopped all the same, and so is one
// whose clients are slow: these are warned of.
func (s *Subsystem) Quiet(ctx context.Context) ([]record.Finding, error) {
	warnings, err := s.quiet(ctx)
	if err == nil && s.hush.asked.Load() {
		err = target.InNamespace(procfs.Host().Process(s.env.Source.Init).Path("ns/net"), s.hush.note)
	}
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return warnings, nil
}

func (s *Subsystem) quiet(ctx context.Context) ([]record.Finding, error) {
	p, err := policy(s.env, TCPRefuse)
	if err != nil || s.env.Peer == nil && p != TCPKeep {
		return nil, err
	}
	ports, err := s.listPorts()
	if err != nil || ports.silence.Empty() && p != TCPKeep {
		return nil, err
	}
	net, err := os.Open(procfs.Host().Process(s.env.Source.Init).Path("ns/net"))
	if err != nil {
		return nil, fmt.Errorf("network namespace of the container: %w", err)
	}
	defer net.Close()
	o, err := s.findOrphans(net, ports.silence)
	if err == nil {
		err = o.waitForThose(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := s.startHold(ports.silence); err != nil {
		return nil, err
	}
	if err := ports.drained(ctx, net); err != nil {
		return nil, err
	}
	left, err := o.wait(ctx, orphansHeld, nil)
	return lostOrphans(left), err
}

// startHold begins to hold what comes to ports.
func (s *Subsystem) startHold(silence netdrop.Silence) error {
	if s.hold != nil {
		return nil
	}
	if err := netdrop.Available(); err != nil {
		slog.Warn("what arrives while the container is stopped is lost", "error", err)
		return nil
	}
	h := &hold{peer: s.env.Peer, silence: silence, connections: map[netdrop.Connection]bool{}, ended: make(chan struct{})}
	var err error
	if h.net, err = os.Open(procfs.Host().Process(s.env.Source.Init).Path("ns/net")); err != nil {
		return fmt.Errorf("network namespace of the container: %w", err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return errors.Join(os.NewSyscallError("eventfd", err), h.net.Close())
	}
	h.wake = os.NewFile(uintptr(fd), "eventfd")
	err = h.in(func() error {
		if err := h.listen(); err != nil {
			return err
		}
		return h.beginDrop()
	})
	if err != nil {
		if h.capture != nil {
			err = errors.Join(err, h.capture.Close())
		}
		return errors.Join(err, h.net.Close(), h.wake.Close())
	}
	s.hold = h
	go h.run()
	s.env.Source.BeforeRun(h.giveBack)
	s.env.Source.AfterKill(h.follow)
	return nil
}

// listen begins to take copies, in the network namespace.
func (h *hold) listen() (err error) {
	h.capture, err = packet.Open()
	h.since = time.Now()
	return err
}

// decidePatience is for a packet of which a copy was taken to come to the drop, on
// another processor.
const decidePatience = 5 * time.Millisecond

// beginDrop begins to drop, behind listen. Of a SYN that has come by then nobody can say
// by its time whether it was dropped. If it was answered, it must not come to the copy,
// which would answer it again: a client whose connection had ended meanwhile would say
// that it knows of no such connection, and be reset for that. If it was not, the client
// would ask again after a second only.
func (h *hold) beginDrop() (err error) {
	if h.added, err = netdrop.Drop(h.silence); err != nil {
		return err
	}
	h.decide = time.Now().Add(decidePatience)
	return h.each(func(p packet.Packet, head packet.Header) {
		if head.New {
			h.doubtful = append(h.doubtful, p.Data)
		} else {
			h.sort(p, head)
		}
	})
}

// decideDoubtful keeps those that were dropped.
func (h *hold) decideDoubtful() {
	var list []netdrop.Connection
	for _, b := range h.doubtful {
		head, _ := packet.Parse(b)
		list = append(list, netdrop.Connection{Source: head.Source, Destination: head.Destination})
	}
	var dropped map[netdrop.Connection]bool
	err := h.in(func() (err error) { dropped, err = netdrop.Knocked(list); return err })
	if err != nil {
		slog.Warn("new connections are not held: their clients have to ask again", "count", len(list), "error", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, b := range h.doubtful {
		if head, _ := packet.Parse(b); dropped[list[i]] {
			h.keepNew(b, head)
		}
	}
	h.doubtful = nil
}

func (h *hold) in(fn func() error) error { return target.InNamespaceFD(int(h.net.Fd()), "net", fn) }

// hear names the connections, which are deaf. What came for them before may have been
// lost already, if somebody has silenced the devices; what was not comes twice, which
// TCP does not mind.
func (h *hold) hear(list []netdrop.Connection) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range list {
		h.connections[c] = true
	}
	h.heard = true
	for _, b := range h.early {
		if head, ok := packet.Parse(b); ok && h.connected(head) {
			h.keep(b)
		}
	}
	h.early = nil
}

// connected: the segment is one of a connection to the outside. mu is held.
func (h *hold) connected(head packet.Header) bool {
	return h.connections[netdrop.Connection{Source: head.Source, Destination: head.Destination}]
}

// sort keeps a packet if nobody here has taken it. mu is held.
func (h *hold) sort(p packet.Packet, head packet.Header) {
	to := head.Destination.Port()
	switch {
	case head.Protocol == unix.IPPROTO_UDP:
		if !p.At.Before(h.since) && slices.Contains(h.silence.Datagrams, to) {
			h.keep(p.Data)
		}
	case head.New:
		if slices.Contains(h.silence.Listeners, to) {
			h.keepNew(p.Data, head)
		}
	case !h.heard:
		for h.early = append(h.early, p.Data); h.earlySize > maxEarly; h.early = h.early[1:] {
			h.earlySize -= len(h.early[0])
		}
		h.earlySize += len(p.Data)
	case h.connected(head):
		h.keep(p.Data)
	}
}

// asked is a SYN.
type asked struct {
	netdrop.Connection
	sequence uint32
}

// mostAsking bounds what is known of SYNs, of which anybody may send any number.
const mostAsking = 1 << 16

// keepNew holds a SYN, once: one that a client sends again, after a second, may come to
// the copy when the first one has been answered there and the visit is over. mu is held.
func (h *hold) keepNew(b []byte, head packet.Header) {
	a := asked{netdrop.Connection{Source: head.Source, Destination: head.Destination}, head.Sequence}
	if h.asking[a] {
		return
	}
	if h.asking == nil {
		h.asking = map[asked]bool{}
	}
	if len(h.asking) < mostAsking {
		h.asking[a] = true
	}
	h.keep(b)
}

// keep holds a packet. mu is held.
func (h *hold) keep(b []byte) {
	if h.size+len(b) > maxKept {
		h.lost++
		return
	}
	h.kept, h.size, h.last = append(h.kept, b), h.size+len(b), time.Now()
}

// run takes what comes, until stop.
func (h *hold) run() {
	defer close(h.ended)
	fds := []unix.PollFd{{Fd: int32(h.capture.FD()), Events: unix.POLLIN}, {Fd: int32(h.wake.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, h.wait()); err != nil && !errors.Is(err, unix.EINTR) {
			slog.Error("hold what arrives", "error", os.NewSyscallError("poll", err))
			return
		}
		if err := h.each(h.sort); err != nil {
			slog.Error("hold what arrives", "error", err)
			return
		}
		if len(h.doubtful) > 0 && (fds[1].Revents != 0 || !time.Now().Before(h.decide)) {
			h.decideDoubtful()
		}
		if err := h.forward(); err != nil {
			slog.Warn("what arrives cannot be handed to the other host", "error", err)
			h.mu.Lock()
			h.peer = nil
			h.mu.Unlock()
		}
		if fds[1].Revents != 0 {
			return
		}
	}
}

// wait is for how long run has nothing to do, in milliseconds, unless something comes.
func (h *hold) wait() int {
	if len(h.doubtful) == 0 {
		return -1
	}
	return int(max(0, time.Until(h.decide)).Milliseconds()) + 1
}

// each reads what has come.
func (h *hold) each(fn func(packet.Packet, packet.Header)) error {
	for {
		p, ok, err := h.capture.Read()
		if err != nil || !ok {
			return err
		}
		if head, ok := packet.Parse(p.Data); ok {
			h.mu.Lock()
			fn(p, head)
			h.mu.Unlock()
		}
	}
}

// forwardPatience bounds how long the other host may take to receive.
const forwardPatience = 10 * time.Second

// forward hands to the other host what it does not have yet.
func (h *hold) forward() error {
	for {
		h.mu.Lock()
		peer, list, first := h.peer, h.kept[h.sent:], h.sent
		h.mu.Unlock()
		if peer == nil || len(list) == 0 {
			return nil
		}
		body, n := encodePackets(list)
		ctx, cancel := context.WithTimeout(context.Background(), forwardPatience)
		_, err := peer.Command(ctx, commandArrived(body))
		cancel()
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.sent = first + n
		h.mu.Unlock()
	}
}

// stop ends run; it takes and forwards what has come until then.
func (h *hold) stop() {
	h.ending.Do(func() {
		_, _ = h.wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-h.ended
	})
}

// close gives up what stop has left.
func (h *hold) close() error {
	return errors.Join(h.capture.Close(), h.net.Close(), h.wake.Close())
}

// giveBack ends the hold of a container that is about to run on: what came
// meanwhile arrives.
func (h *hold) giveBack() error {
	h.mu.Lock()
	h.peer = nil
	h.mu.Unlock()
	err := h.in(func() error { return netdrop.Pass(h.added) })
	if h.unmark != nil {
		err = errors.Join(err, h.unmark())
	}
	h.stop()
	return errors.Join(err, h.in(h.playBack), h.close())
}

func (h *hold) playBack() error {
	if len(h.kept) == 0 {
		return nil
	}
	i, err := packet.NewInjector()
	if err != nil {
		return err
	}
	defer i.Close()
	for _, b := range h.kept {
		if err := i.Inject(b); err != nil {
			slog.Warn("a packet that was held is lost", "error", err)
		}
	}
	return nil
}

// Once a container is gone from here, what comes for it is sent after it until
// nothing has come for lingerQuiet, lingerMost at most.
const (
	lingerQuiet = 10 * time.Millisecond
	lingerMost  = 200 * time.Millisecond
)

// follow ends the hold of a container that was ended.
func (h *hold) follow() error {
	begun := time.Now()
	for time.Since(begun) < lingerMost {
		h.mu.Lock()
		last, peer := h.last, h.peer
		h.mu.Unlock()
		if last.Before(begun) {
			last = begun
		}
		quiet := time.Since(last)
		if peer == nil || quiet >= lingerQuiet {
			break
		}
		time.Sleep(lingerQuiet - quiet)
	}
	h.stop()
	if lost := h.lost + h.capture.Lost; lost > 0 {
		slog.Warn("packets that arrived during the move were lost", "count", lost)
	}
	return errors.Join(h.in(func() error { return netdrop.Pass(h.added) }), h.close())
}
