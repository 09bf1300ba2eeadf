// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	// stepBytes is what one export step copies of segments at most.
	stepBytes = 64 << 20
	// batchBytes is what a record of messages aims at.
	batchBytes = 512 << 10
)

// content is the rest of a segment that has to be exported. One that no process
// has attached is attached by the engine for each step.
type content struct {
	target.Content
	number   uint64
	id       int32
	size     uint64
	attached bool
	huge     uint64 // size of its huge pages in bytes
}

// Checkpoint exports everything but content with the first residual step, that
// with it and the following ones. The processes are stopped.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared || !s.env.Source.OwnIPC {
		return record.Progress{Done: true}, nil
	}
	var n uint64
	err := s.inside(func() error {
		if !s.listed {
			if err := s.exportObjects(ctx, out); err != nil {
				return err
			}
			s.listed = true
		}
		var err error
		n, err = s.exportContents(ctx, out)
		return err
	})
	if err != nil {
		return record.Progress{}, fmt.Errorf("ipc: pid %d: %w", s.env.Source.Init, err)
	}
	return record.Progress{Done: len(s.todo) == 0, Advanced: true, Bytes: n}, nil
}

// exportObjects pushes the descriptions of all objects.
func (s *Subsystem) exportObjects(ctx context.Context, out record.Sink) error {
	found, err := list()
	if err != nil {
		return err
	}
	if err := s.refuseUndo(&found); err != nil {
		return err
	}
	init := procfs.Host().Process(s.env.Source.Init)
	push := func(kind uint32, entity uint64, m proto.Message) error {
		s.entities.Add(1)
		return send(ctx, out, kind, entity, m)
	}
	if err := s.exportSegments(init, found.shm, push); err != nil {
		return err
	}
	for i := range found.sem {
		o, err := describe(init, &found.sem[i].IPCPerm)
		if err != nil {
			return err
		}
		v, err := values(o.Id, int(found.sem[i].Semaphores))
		if err != nil {
			return err
		}
		if err := push(KindSemaphores, uint64(o.Id), &state.SemaphoreSet{Object: o, Value: v}); err != nil {
			return err
		}
	}
	for i := range found.msg {
		if err := exportQueue(init, &found.msg[i], push); err != nil {
			return err
		}
	}
	return s.exportPosixQueues(ctx, init, found.posix, push)
}

// refuseUndo looks again at what may have come since the pre-flight.
func (s *Subsystem) refuseUndo(found *objects) error {
	if len(found.sem) == 0 {
		return nil
	}
	for _, p := range s.env.Source.Processes() {
		list, err := s.undo(p.Proc)
		if err != nil {
			return err
		}
		if len(list) > 0 && !list[0].Warning {
			return errors.New(list[0].String())
		}
	}
	return nil
}

// describe translates what the kinds have in common.
func describe(init procfs.Task, p *procfs.IPCPerm) (*state.IpcObject, error) {
	o := &state.IpcObject{Id: int32(p.ID), Key: p.Key, Mode: p.Mode & permissions}
	var err1, err2 error
	o.Uid, o.Gid, err1 = target.Owner(init, &unix.Stat_t{Uid: p.UID, Gid: p.GID})
	o.CreatorUid, o.CreatorGid, err2 = target.Owner(init, &unix.Stat_t{Uid: p.CUID, Gid: p.CGID})
	return o, errors.Join(err1, err2)
}

// exportSegments lists the segments; their content comes later.
func (s *Subsystem) exportSegments(init procfs.Task, list []procfs.SysVShm, push func(uint32, uint64, proto.Message) error) error {
	links, err := s.attachments()
	if err != nil {
		return err
	}
	for i := range list {
		g := &list[i]
		o, err := describe(init, &g.IPCPerm)
		if err != nil {
			return err
		}
		c := &content{number: uint64(i + 1), id: o.Id, size: g.Size}
		if l, ok := links[o.Id]; ok {
			c.Path, c.attached, c.huge = l.path, true, l.huge
		} else if c.huge, err = hugePageOf(o.Id, g.Size); err != nil {
			return fmt.Errorf("%s %d: %w", segments.name, o.Id, err)
		}
		s.todo = append(s.todo, c)
		msg := &state.SharedSegment{Object: o, Size: g.Size, Removed: g.Mode&shmRemoved != 0, Locked: g.Mode&shmLocked != 0, HugePageSize: c.huge}
		kind := uint32(KindSegment)
		if c.huge > 0 {
			// hugetlbfs does not tell of holes, and what the kernel shows as resident is
			// not to be believed: see target.HugeSegment.
			kind, c.Sparse = KindHugeSegment, true
		} else {
			s.total.Add(g.ResidentBytes + g.SwappedBytes)
		}
		if err := push(kind, c.number, msg); err != nil {
			return err
		}
	}
	return nil
}

// hugePageOf looks at a segment that no process has attached.
func hugePageOf(id int32, size uint64) (uint64, error) {
	a, err := target.AttachSegment(id, size)
	if err != nil {
		return 0, err
	}
	defer a.Detach()
	return a.Page, nil
}

// link leads to a segment's file by a mapping that a process has of it.
type link struct {
	path string
	huge uint64 // size of its huge pages in bytes
}

// attachments finds a mapping of each segment that a process has attached, by
// the segment's id: its inode.
func (s *Subsystem) attachments() (map[int32]link, error) {
	dev, err := target.ShmDevice()
	if err != nil {
		return nil, err
	}
	links := map[int32]link{}
	for _, p := range s.env.Source.Processes() {
		maps, err := p.Proc.Maps()
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", p.Pid, err)
		}
		for i := range maps {
			m := &maps[i]
			if m.Kind != procfs.MapSysV {
				continue
			}
			huge, err := target.HugeDevice(m.Dev)
			if err != nil {
				return nil, err
			}
			if huge > 0 || m.Dev == dev {
				links[int32(m.Inode)] = link{p.Proc.Path(fmt.Sprintf("map_files/%x-%x", m.Start, m.End)), huge}
			}
		}
	}
	return links, nil
}

// exportContents copies what segments hold, up to stepBytes.
func (s *Subsystem) exportContents(ctx context.Context, out record.Sink) (uint64, error) {
	var copied uint64
	for len(s.todo) > 0 && copied < stepBytes {
		c := s.todo[0]
		n, done, err := c.copy(ctx, stepBytes-copied, out)
		if err != nil {
			return copied, fmt.Errorf("content of %s %d: %w", segments.name, c.id, err)
		}
		copied += n
		s.bytes.Add(n)
		if done {
			s.todo = s.todo[1:]
		}
	}
	return copied, nil
}

func (c *content) copy(ctx context.Context, limit uint64, out record.Sink) (uint64, bool, error) {
	if !c.attached {
		a, err := target.AttachSegment(c.id, c.size)
		if err != nil {
			return 0, false, err
		}
		defer a.Detach()
		c.Path = a.Path
	}
	return c.Next(limit, func(offset int64, b []byte) error {
		h := record.Header{Subsystem: Name, Kind: KindContent, Entity: target.ContentEntity(c.number, offset)}
		return out.Push(ctx, &record.Record{Header: h, Payload: b})
	})
}

// exportQueue pushes a queue and copies of its messages.
func exportQueue(init procfs.Task, q *procfs.SysVMsg, push func(uint32, uint64, proto.Message) error) error {
	o, err := describe(init, &q.IPCPerm)
	if err != nil {
		return err
	}
	most, err := maxBytes(o.Id)
	if err != nil {
		return err
	}
	if err := push(KindQueue, uint64(o.Id), &state.MessageQueue{Object: o, MaxBytes: most}); err != nil {
		return err
	}
	buf := make([]byte, 8+q.Bytes)
	batch, size := &state.QueuedMessages{}, 0
	for n := range int(q.Messages) {
		kind, text, err := peek(o.Id, n, buf)
		if err != nil {
			return err
		}
		if size+len(text) > batchBytes && size > 0 {
			if err := push(KindMessages, uint64(o.Id), batch); err != nil {
				return err
			}
			batch, size = &state.QueuedMessages{}, 0
		}
		batch.Message = append(batch.Message, &state.QueuedMessage{Type: kind, Text: append([]byte(nil), text...)})
		size += len(text) + messageOverhead
	}
	if len(batch.Message) == 0 {
		return nil
	}
	return push(KindMessages, uint64(o.Id), batch)
}

// messageOverhead is more than what a message without text needs in a record.
const messageOverhead = 32

func send(ctx context.Context, out record.Sink, kind uint32, entity uint64, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: kind, Entity: entity}, Payload: b})
}
