// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Restart imports: sockets are made in the stage build. What needs every
// description, or every name, comes in the stage join.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Stage == record.StageBuild && step.Process == record.Shared:
		err = s.build()
	case step.Stage == record.StageJoin && step.Process == record.Shared:
		err = s.finishUnix()
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("socket: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// receive keeps a record.
func (s *Subsystem) receive(r *record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Process != record.Shared {
		return fmt.Errorf("%s: sockets belong to no process", r.Header)
	}
	switch r.Kind {
	case KindSocket:
		m, err := decodeSocket(r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Header, err)
		}
		if s.in[r.Entity] != nil {
			return fmt.Errorf("%s: the socket exists already", r.Header)
		}
		a := &arrival{msg: m, feeder: -1}
		if err := s.outsideOf(a); err != nil {
			return fmt.Errorf("%s: %w", r.Header, err)
		}
		if err := s.waitingOf(m); err != nil {
			return fmt.Errorf("%s: %w", r.Header, err)
		}
		if s.env.Frame != nil { // else a test of the decoder
			if err := permitted(&s.env.Frame.Allowed, m); err != nil {
				return fmt.Errorf("%s: %w", r.Header, err)
			}
		}
		if err := s.mapped(m); err != nil {
			return fmt.Errorf("%s: %w", r.Header, err)
		}
		s.in[r.Entity] = a
		s.entities.Add(1)
		return nil
	case KindQueue, KindSendQueue:
		a, q, err := decodeQueue(r, func(id uint64) *arrival { return s.in[id] })
		if err != nil {
			return fmt.Errorf("%s: %w", r.Header, err)
		}
		if a.ended {
			return nil // by the policy
		}
		n := queued(q)
		if s.held += n; s.held > maxHeld {
			return fmt.Errorf("sockets hold more than %d unread bytes", maxHeld)
		}
		if r.Kind == KindSendQueue {
			a.send = append(a.send, q.Stream...)
		} else {
			a.stream = append(a.stream, q.Stream...)
		}
		a.messages = append(a.messages, q.Message...)
		a.senders = append(a.senders, q.Sender...)
		s.bytes.Add(uint64(n))
		return nil
	}
	switch r.Kind {
	case KindMessages:
		return s.receiveMessages(r)
	case KindLost:
		return s.hush.receive(r)
	}
	return fmt.Errorf("%s: kind %d is not known", r.Header, r.Kind)
}

func (s *Subsystem) receiveMessages(r *record.Record) error {
	a, list, err := decodeMessages(r, func(id uint64) *arrival { return s.in[id] })
	if err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	for _, m := range list {
		n := held(m)
		if s.held += n; s.held > maxHeld {
			return fmt.Errorf("sockets hold more than %d unread bytes", maxHeld)
		}
		s.bytes.Add(uint64(n))
		for _, right := range m.Right {
			s.env.Frame.Transit(right)
		}
	}
	a.unread = append(a.unread, list...)
	return nil
}

// build makes the sockets, each in the first process that has it. Pairs with
// names come first, while the names are free, and those that connect last, when
// every name and port is bound.
func (s *Subsystem) build() error {
	s.env.Frame.AtCommit(s.beginAll, s.sinkAll)
	s.env.Frame.AtRelease(s.openAll)
	s.env.Frame.AtLetGo(s.closeRising)
	if err := s.kept.silence(); err != nil {
		return err
	}
	s.beginHush()
	for _, turn := range []int{first, middle, last} {
		for _, t := range s.env.Frame.Tasks() {
			if t.Traced == nil {
				return fmt.Errorf("process %d: %w", t.ID, target.ErrNotStopped)
			}
			if err := s.buildIn(t, turn); err != nil {
				return fmt.Errorf("process %d: %w", t.ID, err)
			}
		}
	}
	return nil
}

// Turns of build.
const (
	first = iota
	middle
	last
)

// turnOf is when a socket is made.
func (s *Subsystem) turnOf(a *arrival) int {
	switch other := s.in[a.msg.Peer]; {
	case hasRemote(a.msg.State):
		return last
	case isNamed(a.msg), other != nil && isNamed(other.msg):
		return first
	}
	return middle
}

func (s *Subsystem) buildIn(t *target.Task, turn int) error {
	b := &builder{task: t, allowed: &s.env.Frame.Allowed}
	var connections []uint64
	for _, desc := range slices.Sorted(maps.Keys(s.in)) {
		a := s.in[desc]
		if s.turnOf(a) != turn || len(t.Table.Slots(desc)) == 0 || a.builtBy != 0 {
			continue
		}
		a.builtBy = t.ID
		if a.msg.State == state.SocketState_SOCKET_STATE_CONNECTION {
			connections = append(connections, desc)
			continue
		}
		if err := s.buildOne(b, desc, a); err != nil {
			return fmt.Errorf("socket %d (%s): %w", desc, summary(a.msg), err)
		}
		a.stream, a.messages, a.senders, a.send = nil, nil, nil, nil
	}
	for part := range slices.Chunk(connections, together) {
		if err := s.buildConnections(b, part); err != nil {
			return err
		}
	}
	return nil
}

// together is how many connections are made at once: as many calls as fit into the
// memory for a task's calls.
const together = 64

func (s *Subsystem) buildOne(b *builder, desc uint64, a *arrival) error {
	switch a.msg.State {
	case state.SocketState_SOCKET_STATE_CONNECTING:
		if a.msg.Family == unix.AF_UNIX {
			return b.single(desc, a)
		}
		c, err := b.connectLater(desc, a.msg)
		if err == nil {
			s.connecting = append(s.connecting, c)
		}
		return err
	}
	if a.msg.State != state.SocketState_SOCKET_STATE_PAIR {
		return b.single(desc, a)
	}
	other := s.in[a.msg.Peer]
	if a.msg.Peer != 0 {
		if other == nil || other.msg.Peer != desc || other == a || other.msg.Type != a.msg.Type {
			return fmt.Errorf("its other end, %d, is not in the image", a.msg.Peer)
		}
		other.builtBy = b.task.ID
	}
	return b.pair(desc, a, other)
}

// buildConnections makes TCP connections, and their other ends if those are closed.
func (s *Subsystem) buildConnections(b *builder, descs []uint64) error {
	if s.limits == nil {
		var err error
		if s.limits, err = bufferLimits(b.task); err != nil {
			return err
		}
	}
	list := make([]*arrival, len(descs))
	for i, desc := range descs {
		a := s.in[desc]
		if other := s.in[a.msg.Peer]; a.msg.Peer != 0 && (other == nil || other.msg.Peer != desc || other == a || other.msg.State != a.msg.State) {
			return fmt.Errorf("socket %d (%s): its other end, %d, is not in the image", desc, summary(a.msg), a.msg.Peer)
		}
		list[i] = a
	}
	if err := makeWay(b.task, list); err != nil {
		return err
	}
	all, err := b.connections(list, descs)
	if err != nil {
		return err
	}
	s.rising = append(s.rising, all...)
	for i, r := range all {
		a := list[i]
		r.limits, r.net = s.limits, b.task.Proc.Path("ns/net")
		r.bound = func() {
			s.play.forget(netdrop.Connection{Source: endpoint(a.msg.Family, a.msg.Remote), Destination: endpoint(a.msg.Family, a.msg.Local)})
		}
		if closed := a.msg.Tcp.ReceiveEnded && a.msg.Peer == 0 && !a.msg.Tcp.Outside; closed {
			if r.standIn, err = newStandIn(b.task, r, a); err != nil {
				return err
			}
		}
		a.stream, a.send = nil, nil
	}
	return nil
}

// summary names a socket in errors.
func summary(m *state.Socket) string {
	s := fmt.Sprintf("family %d, type %d", m.Family, m.Type)
	if name := addressText(m.Family, m.Local); name != "" {
		s += ", bound to " + name
	}
	if name := addressText(m.Family, m.Remote); name != "" {
		s += ", connected to " + name
	}
	return s
}
