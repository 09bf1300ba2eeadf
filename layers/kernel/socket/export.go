// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// exporter exports all sockets of the container.
type exporter struct {
	*Subsystem
	out record.Sink
	// descriptions by inode, and the networks by namespace.
	descriptions map[uint64]uint64
	networks     map[uint64]*network
	policy       string
	ours         map[uint64]bool // inodes
	tcp          *tcpTable
	// connections are the TCP connections by their descriptions.
	connections map[uint64]*connected
	byEnds      map[ends]uint64
	// queues are the TCP listeners, and waiting the connections from outside that
	// nobody has accepted (tcp_waiting.go).
	queues  []queue
	waiting []ends
	// sockets are the TCP connections of network namespaces, by their inodes.
	sockets map[uint64][]*inetSocket
}

// Checkpoint exports all sockets in one step, for the container as a whole: two
// that are connected may be anywhere in it.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared {
		return record.Progress{Done: true}, nil
	}
	x := &exporter{
		Subsystem: s, out: out, descriptions: map[uint64]uint64{}, networks: map[uint64]*network{},
		ours: map[uint64]bool{}, tcp: newTCPTable(),
		connections: map[uint64]*connected{}, byEnds: map[ends]uint64{}, sockets: map[uint64][]*inetSocket{},
	}
	var err error
	if x.policy, err = policy(s.env, TCPRefuse); err != nil {
		return record.Progress{}, fmt.Errorf("socket: %w", err)
	}
	n, err := x.all(ctx)
	if err != nil {
		return record.Progress{}, fmt.Errorf("socket: %w", err)
	}
	return record.Progress{Done: true, Advanced: true, Entities: n, Bytes: s.bytes.Load()}, nil
}

func (x *exporter) all(ctx context.Context) (uint64, error) {
	procs := x.env.Source.Processes()
	for _, p := range procs {
		if p.Traced == nil {
			return 0, fmt.Errorf("process %d: %w", p.ID, target.ErrNotStopped)
		}
		list, err := p.Descriptors()
		if err != nil {
			return 0, err
		}
		for i := range list {
			if list[i].Owner() == target.OwnerSocket {
				x.descriptions[list[i].Link.Inode] = list[i].Description
				x.ours[list[i].Link.Inode] = true
			}
		}
		if err := x.tcp.add(p.Proc, list); err != nil {
			return 0, fmt.Errorf("pid %d: %w", p.Pid, err)
		}
	}
	defer x.closeConnections()
	if err := x.findConnections(procs); err != nil {
		return 0, err
	}
	if err := x.readConnections(ctx); err != nil {
		return 0, err
	}
	x.silence()
	done := map[uint64]bool{}
	for _, p := range procs {
		list, err := p.Descriptors()
		if err != nil {
			return 0, err
		}
		for i := range list {
			d := &list[i]
			if d.Owner() != target.OwnerSocket || done[d.Description] {
				continue
			}
			done[d.Description] = true
			if err := x.export(ctx, p, d); err != nil {
				return 0, fmt.Errorf("pid %d: fd %d: %w", p.Pid, d.FD, err)
			}
			x.entities.Add(1)
		}
	}
	x.handOn()
	return uint64(len(done)), x.pushLost(ctx)
}

// network looks at a process's network namespace once.
func (x *exporter) network(p *target.Process) (*network, error) {
	ns, err := p.Proc.Namespace("net")
	if err != nil {
		return nil, err
	}
	if n := x.networks[ns.Inode]; n != nil {
		return n, nil
	}
	n, err := look(p.Proc, x.policy, x.ours, x.tcp)
	if err != nil {
		return nil, err
	}
	n.moves = x.env.Peer != nil
	x.networks[ns.Inode] = n
	return n, nil
}

// export pushes one socket and what is unread in it.
func (x *exporter) export(ctx context.Context, p *target.Process, d *target.Descriptor) error {
	n, err := x.network(p)
	if err != nil {
		return err
	}
	c, how := x.connections[d.Description], state.SocketState_SOCKET_STATE_CONNECTION
	if c == nil {
		if how, err = n.classify(p.Proc, d); err != nil {
			return err
		}
	}
	f, err := p.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	g := &getter{network: n, fd: int(f.Fd()), p: p, d: d, deaf: c != nil && c.outside}
	msg, err := g.describe(how)
	if err != nil {
		return err
	}
	var parts []*state.SocketQueue
	var messages []*state.SocketMessages
	if msg.Family == unix.AF_UNIX {
		x.peers(n.unix[uint32(d.Link.Inode)], n, msg)
		if mayReceive(msg) {
			if parts, messages, err = x.unreadUnix(p, d, g.fd, msg); err != nil {
				return err
			}
		}
	}
	if isListeningTCP(msg) && n.carriesWaiting() {
		if msg.Waiting, err = x.waitAt(p, d, endpoint(msg.Family, msg.Local).Port()); err != nil {
			return err
		}
	}
	if isUDP(msg) {
		if parts, err = peekDatagrams(g.fd); err != nil {
			return err
		}
	}
	var sent []*state.SocketQueue
	if c != nil {
		msg.Tcp, msg.Peer = c.read.msg, x.byEnds[c.ends.reversed()]
		parts, sent = split(c.read.receive), split(c.read.send)
	}
	if err := x.push(ctx, record.Header{Kind: KindSocket, Entity: d.Description}, msg); err != nil {
		return err
	}
	if err := x.pushQueue(ctx, KindQueue, d.Description, parts); err != nil {
		return err
	}
	if err := x.pushMessages(ctx, d.Description, messages); err != nil {
		return err
	}
	return x.pushQueue(ctx, KindSendQueue, d.Description, sent)
}

// peers names the other ends of a unix socket.
func (x *exporter) peers(u *unixSocket, n *network, msg *state.Socket) {
	switch msg.State {
	case state.SocketState_SOCKET_STATE_PAIR, state.SocketState_SOCKET_STATE_CONNECTED:
		if u.peer != 0 {
			msg.Peer = x.descriptions[uint64(u.peer)]
		}
	case state.SocketState_SOCKET_STATE_CONNECTING:
		msg.Peer = x.descriptions[uint64(n.waiting[u.inode].inode)]
	case state.SocketState_SOCKET_STATE_LISTENING:
		for _, client := range u.pending {
			msg.Pending = append(msg.Pending, x.descriptions[uint64(client)])
		}
	}
}

// pushMessages pushes the parts of a queue of messages.
func (x *exporter) pushMessages(ctx context.Context, description uint64, parts []*state.SocketMessages) error {
	for i, part := range parts {
		part.Description = description
		if err := x.push(ctx, record.Header{Kind: KindMessages, Entity: description<<queueShift | uint64(i)}, part); err != nil {
			return err
		}
		for _, m := range part.Message {
			x.bytes.Add(uint64(len(m.Data)))
		}
	}
	return nil
}

// pushQueue pushes the parts of a queue.
func (x *exporter) pushQueue(ctx context.Context, kind uint32, description uint64, parts []*state.SocketQueue) error {
	for i, part := range parts {
		part.Description = description
		if err := x.push(ctx, record.Header{Kind: kind, Entity: description<<queueShift | uint64(i)}, part); err != nil {
			return err
		}
		x.bytes.Add(uint64(queued(part)))
	}
	return nil
}

func (x *exporter) push(ctx context.Context, h record.Header, m proto.Message) error {
	h.Subsystem = Name
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", h, err)
	}
	return x.out.Push(ctx, &record.Record{Header: h, Payload: b})
}
