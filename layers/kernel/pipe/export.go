// SPDX-License-Identifier: Apache-2.0

package pipe

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	// streamPart is what one record of a stream holds at most.
	streamPart = 1 << 20
	// packetParts is how many packets one record holds: 4,096 bytes each.
	packetParts = 256
	// idShift: a content's entity is the pipe's id and the part's number.
	idShift = 24
)

// Checkpoint exports all pipes in one step, for the container as a whole: their
// ends may be anywhere in it.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared {
		return record.Progress{Done: true}, nil
	}
	var gs groups
	for _, p := range s.env.Source.Processes() {
		if p.Traced == nil {
			return record.Progress{}, fmt.Errorf("pipe: process %d: %w", p.ID, target.ErrNotStopped)
		}
		list, err := p.Descriptors()
		if err != nil {
			return record.Progress{}, fmt.Errorf("pipe: %w", err)
		}
		for i := range list {
			gs.add(end{pid: p.Pid, proc: p, d: &list[i]})
		}
	}
	for i, g := range gs.list {
		if err := s.export(ctx, uint64(i+1), g, out); err != nil {
			return record.Progress{}, fmt.Errorf("pipe: pid %d: fd %d: %w", g.ends[0].pid, g.ends[0].d.FD, err)
		}
	}
	return record.Progress{Done: true, Advanced: true, Entities: uint64(len(gs.list)), Bytes: s.bytes.Load()}, nil
}

// export pushes one pipe and what is in it.
func (s *Subsystem) export(ctx context.Context, id uint64, g *group, out record.Sink) error {
	e := g.reader()
	if e == nil {
		e = g.writer()
	}
	f, err := e.proc.Open(e.d)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := g.outside(int(f.Fd()))
	if err != nil {
		return err
	}
	if r != nil {
		if carried, err := s.carries(g); err != nil || !carried {
			return errors.Join(err, r)
		}
	}
	msg, err := g.describe(int(f.Fd()))
	if err != nil {
		return err
	}
	msg.Abandoned = r != nil
	var parts []*state.PipeContent
	if g.reader() != nil { // else nobody can read it any more
		if parts, err = unread(int(f.Fd()), int(msg.Capacity), g.packets(), msg.Abandoned); err != nil {
			return err
		}
	}
	if (g.fifo || g.stdin) && len(parts) == 0 {
		return nil
	}
	if err := push(ctx, out, record.Header{Kind: KindPipe, Entity: id}, msg); err != nil {
		return err
	}
	for i, part := range parts {
		part.Pipe = id
		if err := push(ctx, out, record.Header{Kind: KindContent, Entity: id<<idShift | uint64(i)}, part); err != nil {
			return err
		}
		s.bytes.Add(uint64(size(part)))
	}
	s.entities.Add(1)
	return nil
}

// carries: the pipe leads to the client of a session of exec, and the request
// does not refuse those.
func (s *Subsystem) carries(g *group) (bool, error) {
	if s.env.RefusesExec() {
		return false, nil
	}
	return g.ofExec(s.env.Source.Init)
}

// describe makes the message but for the content.
func (g *group) describe(fd int) (*state.Pipe, error) {
	capacity, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return nil, fmt.Errorf("read its capacity: %w", err)
	}
	d := g.ends[0].d
	msg := &state.Pipe{Capacity: uint32(capacity), OpenedElsewhere: g.fifo || g.stdin, Mode: d.Stat.Mode & 0o7777}
	if g.stdin {
		msg.Stdio = 1
	}
	if msg.Uid, msg.Gid, err = target.Owner(g.ends[0].proc.Proc, &d.Stat); err != nil {
		return nil, err
	}
	seen := map[uint64]bool{}
	for _, e := range g.ends {
		if !seen[e.d.Description] {
			seen[e.d.Description] = true
			msg.End = append(msg.End, &state.PipeEnd{Description: e.d.Description, Flags: uint32(e.d.Flags & endFlags)})
		}
	}
	return msg, nil
}

// endFlags are the flags that an end can have.
const endFlags = unix.O_ACCMODE | target.StatusFlags

// unread copies what is in a pipe without taking it: tee(2) makes the buffers
// of the pipe those of another one, too, which has as many of them. Somebody
// outside may write to an open pipe meanwhile.
func unread(fd, capacity int, packets, open bool) ([]*state.PipeContent, error) {
	want, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return nil, os.NewSyscallError("ioctl(FIONREAD)", err)
	}
	if want == 0 {
		return nil, nil
	}
	var own [2]int
	if err := unix.Pipe2(own[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(own[0])
	defer unix.Close(own[1])
	if _, err := unix.FcntlInt(uintptr(own[1]), unix.F_SETPIPE_SZ, capacity); err != nil {
		return nil, fmt.Errorf("make a pipe of %d bytes: %w", capacity, err)
	}
	const splitNonblock = 2 // SPLICE_F_NONBLOCK
	n, err := unix.Tee(fd, own[1], 1<<30, splitNonblock)
	if err != nil {
		return nil, os.NewSyscallError("tee", err)
	}
	if open && int(n) > want {
		want = int(n)
	}
	if int(n) != want {
		return nil, fmt.Errorf("tee copied %d of %d unread bytes: somebody outside of the container uses the pipe", n, want)
	}
	return readAll(own[0], want, packets)
}

// readAll empties the engine's own copy. A read of packet mode returns one
// packet.
func readAll(fd, total int, packets bool) ([]*state.PipeContent, error) {
	var parts []*state.PipeContent
	open := &state.PipeContent{}
	flush := func() {
		parts, open = append(parts, open), &state.PipeContent{}
	}
	for total > 0 {
		buf := make([]byte, min(total, streamPart))
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil, fmt.Errorf("read back %d bytes: %w", total, errors.Join(err, errShort))
		}
		total -= n
		if !packets {
			open.Stream = buf[:n]
			flush()
			continue
		}
		if open.Packet = append(open.Packet, append([]byte(nil), buf[:n]...)); len(open.Packet) == packetParts {
			flush()
		}
	}
	if len(open.Packet) > 0 {
		flush()
	}
	return parts, nil
}

var errShort = errors.New("fewer than were copied")

// size of the content in bytes.
func size(c *state.PipeContent) int {
	n := len(c.Stream)
	for _, p := range c.Packet {
		n += len(p)
	}
	return n
}

func push(ctx context.Context, out record.Sink, h record.Header, m proto.Message) error {
	h.Subsystem = Name
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", h, err)
	}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}
