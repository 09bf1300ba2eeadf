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
		c.Path, c.attached = links[uint64(uint32(o.Id))], links[uint64(uint32(o.Id))] != ""
		s.todo = append(s.todo, c)
		s.total.Add(g.ResidentBytes + g.SwappedBytes)
		msg := &state.SharedSegment{Object: o, Size: g.Size, Removed: g.Mode&shmRemoved != 0, Locked: g.Mode&shmLocked != 0}
		if err := push(KindSegment, c.number, msg); err != nil {
			return err
		}
	}
	return nil
}

// attachments finds a mapping of each segment that a process has attached, by
// the segment's id: its inode.
func (s *Subsystem) attachments() (map[uint64]string, error) {
	dev, err := target.ShmDevice()
	if err != nil {
		return nil, err
	}
	links := map[uint64]string{}
	for _, p := range s.env.Source.Processes() {
		maps, err := p.Proc.Maps()
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", p.Pid, err)
		}
		for i := range maps {
			if m := &maps[i]; m.Kind == procfs.MapSysV && m.Dev == dev {
				links[m.Inode] = p.Proc.Path(fmt.Sprintf("map_files/%x-%x", m.Start, m.End))
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
		at, err := attach(c.id)
		if err != nil {
			return 0, false, err
		}
		defer detach(at)
		c.Path = fmt.Sprintf("/proc/self/map_files/%x-%x", at, uint64(at)+wholePages(c.size))
	}
	var on unix.Statfs_t
	if err := unix.Statfs(c.Path, &on); err != nil {
		return 0, false, err
	}
	if on.Type == unix.HUGETLBFS_MAGIC {
		return 0, false, &refusal{fmt.Sprintf("%s %d", segments.name, c.id), "it uses huge pages (SHM_HUGETLB), which are not carried by this version", ""}
	}
	return c.Next(limit, func(offset int64, b []byte) error {
		h := record.Header{Subsystem: Name, Kind: KindContent, Entity: target.ContentEntity(c.number, offset)}
		return out.Push(ctx, &record.Record{Header: h, Payload: b})
	})
}

func wholePages(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

const pageSize = 4096

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
