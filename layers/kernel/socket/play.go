// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
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
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// verbArrived is the command by which a source hands on what has reached it:
// packets behind their lengths (encodePackets).
const verbArrived = "arrived"

func commandArrived(body []byte) record.Command {
	return record.Command{To: Name, Verb: verbArrived, Body: body}
}

// player has packets arrive that were held at the source, once the sockets that
// they are for stand. They come from the other host: only what is for a socket of
// the image, at an address of this namespace, gets in.
type player struct {
	mu sync.Mutex
	// Below: guarded by mu.
	waiting  [][]byte // until start
	size     int      // of it, in bytes
	injector *packet.Injector
	over     bool

	connections map[netdrop.Connection]bool
	silence     netdrop.Silence // of ports
	// expected are the connections that nobody has accepted, until the source has
	// handed them on.
	expected map[netdrop.Connection]*expected
	net      *os.File // network namespace; nil if nothing is expected or may come
}

// Command takes what the source hands on.
func (s *Subsystem) Command(_ context.Context, c record.Command) (record.Command, error) {
	if c.Verb == verbLost && s.env.Source != nil {
		s.hush.asked.Store(true)
		return record.Command{To: Name, Verb: c.Verb}, nil
	}
	if c.Verb == verbWaiting && s.env.Frame != nil {
		err := s.play.waits(c.Body)
		if err != nil {
			err = fmt.Errorf("socket: %w", err)
		}
		return record.Command{}, err
	}
	if c.Verb != verbArrived || s.env.Frame == nil {
		return record.Command{}, fmt.Errorf("socket: command %q: %w", c.Verb, errors.ErrUnsupported)
	}
	list, err := decodePackets(c.Body)
	if err != nil {
		return record.Command{}, fmt.Errorf("socket: %w", err)
	}
	s.play.take(list)
	return record.Command{}, nil
}

func (p *player) take(list [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range list {
		switch {
		case p.over:
		case p.injector != nil:
			p.arrive(b)
		case p.size+len(b) <= maxKept:
			p.waiting, p.size = append(p.waiting, bytes.Clone(b)), p.size+len(b)
		}
	}
}

// start has arrive what has come, here last, and from then on what comes. It must be
// called in the container's network namespace.
func (p *player) start(connections map[netdrop.Connection]bool, ports netdrop.Silence, waiting []netdrop.Connection, here [][]byte) error {
	i, err := packet.NewInjector()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		i.Close()
		return err
	}
	p.injector, p.connections, p.silence, p.expected = i, connections, ports, map[netdrop.Connection]*expected{}
	for _, c := range waiting {
		p.expected[c] = &expected{}
	}
	if len(waiting) > 0 {
		time.AfterFunc(waitingPatience, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if err := p.giveUpWaiting(); err != nil {
				slog.Warn("let through what nobody hands on", "error", err)
			}
		})
	}
	for _, b := range p.waiting {
		p.arrive(b)
	}
	p.waiting = nil
	for _, b := range here {
		p.arrive(b)
	}
	return nil
}

// end has nothing arrive any more.
func (p *player) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over, p.waiting = true, nil
}

// forget has nothing more arrive for a connection.
func (p *player) forget(c netdrop.Connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.connections, c)
}

// arrive has one packet arrive, if it is for a socket of ours. mu is held.
func (p *player) arrive(b []byte) {
	h, ok := packet.Parse(b)
	if !ok {
		return
	}
	if e := p.expected[netdrop.Connection{Source: h.Source, Destination: h.Destination}]; e != nil {
		if len(e.packets) < maxExpected {
			e.packets = append(e.packets, bytes.Clone(b))
		}
		return
	}
	if !p.admits(h) {
		return
	}
	if err := p.injector.Inject(b); err != nil {
		slog.Warn("a packet that arrived at the source is lost", "from", h.Source, "to", h.Destination, "error", err)
	}
}

func (p *player) admits(h packet.Header) bool {
	to := h.Destination.Port()
	switch {
	case h.Protocol == unix.IPPROTO_UDP:
		return slices.Contains(p.silence.Datagrams, to)
	case h.New && p.listens(to):
		return true
	}
	return p.connections[netdrop.Connection{Source: h.Source, Destination: h.Destination}]
}

// waitingPatience is how long the source may take to hand on what nobody has accepted.
const waitingPatience = 5 * time.Second

func (p *player) listens(port uint16) bool { return slices.Contains(p.silence.Listeners, port) }

// portsOf are those of an image's sockets that receive from any device.
func (s *Subsystem) portsOf() (ports netdrop.Silence) {
	for _, a := range s.in {
		m := a.msg
		p := endpoint(m.Family, m.Local).Port()
		if p == 0 || find(m.Option, unix.SOL_SOCKET, unix.SO_BINDTODEVICE) != nil {
			continue
		}
		switch {
		case m.State == state.SocketState_SOCKET_STATE_LISTENING && m.Type == unix.SOCK_STREAM:
			ports.Listeners = append(ports.Listeners, p)
		case isUDP(m):
			ports.Datagrams = append(ports.Datagrams, p)
		}
	}
	return ports
}

// startPlay is called when every socket stands and before one is bound to a
// device.
func (s *Subsystem) startPlay() error {
	if s.env.Peer == nil && s.kept == nil {
		return nil
	}
	connections := map[netdrop.Connection]bool{}
	var waiting []netdrop.Connection
	if s.kept != nil {
		waiting = s.kept.waiting
		for _, c := range s.kept.all {
			connections[c] = true
		}
	}
	here, err := s.kept.held()
	if err != nil {
		return err
	}
	here = slices.DeleteFunc(here, func(b []byte) bool { h, _ := packet.Parse(b); return h.Protocol != unix.IPPROTO_TCP || h.New })
	ports := s.portsOf()
	if len(connections) == 0 && len(ports.Listeners) == 0 && len(ports.Datagrams) == 0 {
		s.play.end() // nothing that came could be for anybody
		return nil
	}
	return target.InNamespace(s.env.Frame.Task(target.FirstTask).Proc.Path("ns/net"), func() error {
		return s.play.start(connections, ports, waiting, here)
	})
}
