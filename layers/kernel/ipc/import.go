// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// anybody is the mode of an object while the frame, which is root without the
// capability to use others' (CAP_IPC_OWNER), has to use it.
const anybody = 0o666

// segment is shared memory on its way in.
type segment struct {
	msg *state.SharedSegment
	fd  int // of the first process, by which the content is written; -1: closed
}

// owner is an object that gets its owner and mode in the end.
type owner struct {
	kind   *kind
	object *state.IpcObject
	// removed and locked are those of a segment.
	removed, locked bool
}

// Restart imports: objects are made and filled as their records arrive, before
// memory's, which attach them.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	p := record.Progress{Done: true}
	var err error
	switch {
	case in != nil:
		p.Advanced, p.Entities = true, 1
		p.Bytes, err = s.receive(in)
	case step.Process != record.Shared:
	case step.Stage == record.StageBuild:
		err = s.closeDescriptors()
	case step.Stage == record.StageSettle:
		err = s.settle()
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("ipc: %w", err)
	}
	return p, nil
}

func (s *Subsystem) receive(in *record.Record) (n uint64, err error) {
	if in.Process != record.Shared {
		return 0, fmt.Errorf("%w: %s: it belongs to no process", errImage, in.Header)
	}
	if !s.env.Frame.OwnIPC {
		return 0, errors.New("the image has IPC objects, and the new container shares its IPC namespace with others: give it one of its own")
	}
	t := s.env.Frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return 0, target.ErrNotStopped
	}
	s.entities.Add(1)
	switch in.Kind {
	case KindSegment, KindHugeSegment:
		err = s.makeSegment(t, in)
	case KindContent:
		n, err = s.fill(t, in)
	case KindSemaphores:
		err = s.makeSemaphores(t, in)
	case KindQueue:
		err = s.makeQueue(t, in)
	case KindMessages:
		err = s.sendMessages(t, in)
	case KindPosixQueue:
		err = s.makePosixQueue(t, in)
	case KindPosixMessages:
		err = s.sendPosixMessages(t, in)
	default:
		err = fmt.Errorf("%w: this version knows no such kind", errImage)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", in.Header, err)
	}
	return n, nil
}

// create makes an object as its creator by one call, which has to return its id. The
// right, nil for most, is what it needs for huge pages.
func (s *Subsystem) create(t *target.Task, k *kind, o *state.IpcObject, c tracer.Call, right *target.HugeRight) error {
	if err := s.inside(func() error { return k.setNext(o.Id) }); err != nil {
		return err
	}
	p := t.Plan()
	p.AsUser(o.CreatorUid, o.CreatorGid)
	if right != nil {
		p.UseHugeRight(right)
	}
	made := p.Quiet(c)
	p.AsRoot()
	if right != nil {
		p.DropHugeRight()
	}
	if err := p.Run(); err != nil {
		return err
	}
	id, err := p.Result(made)
	if err != nil {
		return fmt.Errorf("make %s %d with key %#x (do the container's limits, sysctl kernel.{shm,sem,msg}*, allow it?): %w", k.name, o.Id, uint32(o.Key), err)
	}
	if id != int64(o.Id) {
		return fmt.Errorf("%s %d got the id %d: the id is taken", k.name, o.Id, id)
	}
	return nil
}

// makeSegment makes shared memory and gets the first process a descriptor of it.
func (s *Subsystem) makeSegment(t *target.Task, in *record.Record) error {
	m, err := decodeSegment(in)
	if err != nil {
		return err
	}
	if in.Entity != uint64(len(s.segments)+1) {
		return fmt.Errorf("%w: segment number %d in place of %d", errImage, in.Entity, len(s.segments)+1)
	}
	if err := s.shmget(t, m); err != nil {
		return err
	}
	size := target.SegmentBytes(m.Size, m.HugePageSize)
	calls := []tracer.Call{tracer.Syscall(unix.SYS_SHMAT, uint64(m.Object.Id), 0, 0)}
	if err := t.Run(calls); err != nil {
		return fmt.Errorf("attach it: %w", err)
	}
	at := uint64(calls[0].Ret)
	f, err := os.OpenFile(t.Proc.Path(fmt.Sprintf("map_files/%x-%x", at, at+size)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fds, err := t.Accept([]*os.File{f})
	if err != nil {
		return err
	}
	t.Table.Keep(fds[0])
	if err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_SHMDT, at)}); err != nil {
		return fmt.Errorf("detach it: %w", err)
	}
	s.segments = append(s.segments, &segment{m, fds[0]})
	s.owners = append(s.owners, owner{kind: segments, object: m.Object, removed: m.Removed, locked: m.Locked})
	s.env.Frame.AddSegment(m.Object.Id, target.Segment{Size: size, Page: m.HugePageSize})
	return nil
}

// shmget makes a segment. Huge pages are made only where the live spec lets its
// processes do that.
func (s *Subsystem) shmget(t *target.Task, m *state.SharedSegment) error {
	key, flags := m.Object.Key, uint64(ipcCreate|ipcExcl|anybody)
	if m.Removed {
		key = 0 // the key may be another's by now
	}
	var right *target.HugeRight
	if m.HugePageSize > 0 {
		err := target.CheckHugeSize(m.HugePageSize)
		if err == nil {
			right, err = s.env.Frame.Allowed.HugeSegments(t.Proc)
		}
		if err != nil {
			return fmt.Errorf("make %s %d: %w", segments.name, m.Object.Id, err)
		}
		flags |= shmHuge | uint64(target.HugeFlag(m.HugePageSize))
	}
	err := s.create(t, segments, m.Object, tracer.Syscall(unix.SYS_SHMGET, uint64(uint32(key)), m.Size, flags), right)
	if m.HugePageSize > 0 && errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%s: %w", target.WantedHuge(m.HugePageSize, target.SegmentBytes(m.Size, m.HugePageSize)/m.HugePageSize), err)
	}
	return err
}

// fill writes content, by the process itself: its pages are charged to the
// container.
func (s *Subsystem) fill(t *target.Task, in *record.Record) (uint64, error) {
	number, offset := target.SplitContentEntity(in.Entity)
	if number == 0 || number > uint64(len(s.segments)) {
		return 0, fmt.Errorf("%w: content of a segment that was not announced", errImage)
	}
	g, n := s.segments[number-1], uint64(len(in.Payload))
	size := g.msg.Size
	if g.msg.HugePageSize > 0 {
		size = target.SegmentBytes(size, g.msg.HugePageSize)
	}
	if n == 0 || g.fd < 0 || uint64(offset) > size || n > size-uint64(offset) {
		return 0, fmt.Errorf("%w: %d bytes at %d of a segment of %d", errImage, n, offset, size)
	}
	if huge := g.msg.HugePageSize; huge > 0 {
		if err := t.WriteHuge(g.fd, huge, uint64(offset), in.Payload); err != nil {
			return 0, fmt.Errorf("write %s %d: %w", segments.name, g.msg.Object.Id, err)
		}
		s.bytes.Add(n)
		return n, nil
	}
	p := t.Plan()
	p.Expect(tracer.Syscall(unix.SYS_PWRITE64, uint64(g.fd), p.Put(in.Payload), n, uint64(offset)), int64(n))
	if err := p.Run(); err != nil {
		return 0, fmt.Errorf("write shared memory: %w", err)
	}
	s.bytes.Add(n)
	return n, nil
}

func (s *Subsystem) makeSemaphores(t *target.Task, in *record.Record) error {
	m, err := decodeSemaphores(in)
	if err != nil {
		return err
	}
	n := uint64(len(m.Value))
	if err := s.create(t, semaphores, m.Object, tracer.Syscall(unix.SYS_SEMGET, uint64(uint32(m.Object.Key)), n, ipcCreate|ipcExcl|anybody), nil); err != nil {
		return err
	}
	var b []byte
	for _, v := range m.Value {
		b = binary.LittleEndian.AppendUint16(b, uint16(v))
	}
	p := t.Plan()
	p.Call(tracer.Syscall(unix.SYS_SEMCTL, uint64(m.Object.Id), 0, semSetAll, p.Put(b)))
	s.owners = append(s.owners, owner{kind: semaphores, object: m.Object})
	return p.Run()
}

func (s *Subsystem) makeQueue(t *target.Task, in *record.Record) error {
	m, err := decodeQueue(in)
	if err != nil {
		return err
	}
	if err := s.create(t, queues, m.Object, tracer.Syscall(unix.SYS_MSGGET, uint64(uint32(m.Object.Key)), ipcCreate|ipcExcl|anybody), nil); err != nil {
		return err
	}
	s.owners = append(s.owners, owner{kind: queues, object: m.Object})
	return s.inside(func() error {
		now, err := maxBytes(m.Object.Id)
		// More than the namespace's default is for those who may raise limits.
		if err != nil || m.MaxBytes == now || m.MaxBytes > now && s.env.Frame.Allowed.Permitted&(1<<unix.CAP_SYS_RESOURCE) == 0 {
			return err
		}
		return setMaxBytes(m.Object.Id, m.MaxBytes)
	})
}

func (s *Subsystem) sendMessages(t *target.Task, in *record.Record) error {
	m, err := decodeMessages(in)
	if err != nil {
		return err
	}
	known := false
	for _, o := range s.owners {
		known = known || o.kind == queues && uint64(o.object.Id) == in.Entity
	}
	if !known {
		return fmt.Errorf("%w: messages of a queue that was not announced", errImage)
	}
	for len(m.Message) > 0 {
		n := min(len(m.Message), sendAtOnce)
		p := t.Plan()
		for _, q := range m.Message[:n] {
			text := binary.LittleEndian.AppendUint64(nil, uint64(q.Type))
			p.Expect(tracer.Syscall(unix.SYS_MSGSND, in.Entity, p.Put(append(text, q.Text...)), uint64(len(q.Text)), ipcNoWait), 0)
		}
		if err := p.Run(); err != nil {
			return fmt.Errorf("send the messages again (does sysctl kernel.msgmax allow their size, kernel.msgmnb their sum?): %w", err)
		}
		m.Message = m.Message[n:]
	}
	return nil
}

// sendAtOnce bounds the messages of one batch.
const sendAtOnce = 256

// closeDescriptors closes what only the import needed.
func (s *Subsystem) closeDescriptors() error {
	t := s.env.Frame.Task(target.FirstTask)
	if len(s.segments)+len(s.posix) == 0 {
		return nil
	}
	if t == nil || t.Traced == nil {
		return target.ErrNotStopped
	}
	p := t.Plan()
	for _, g := range s.segments {
		if g.fd >= 0 {
			p.Close(g.fd)
			g.fd = -1
		}
	}
	for _, q := range s.posix {
		if q.fd >= 0 {
			p.Close(q.fd)
			q.fd = -1
		}
	}
	return p.Run()
}

// settle gives the objects their owners and modes, when nobody of ours has to
// use them any more.
func (s *Subsystem) settle() error {
	t := s.env.Frame.Task(target.FirstTask)
	for _, o := range s.owners {
		if o.locked {
			p := t.Plan()
			p.AsUser(o.object.CreatorUid, o.object.CreatorGid)
			p.Call(tracer.Syscall(unix.SYS_SHMCTL, uint64(o.object.Id), shmLock, 0))
			p.AsRoot()
			if err := p.Run(); err != nil {
				return fmt.Errorf("lock %s %d: %w", o.kind.name, o.object.Id, err)
			}
		}
		uid, gid, err := s.ownerOf(t, o.object)
		if err != nil {
			return fmt.Errorf("%s %d: %w", o.kind.name, o.object.Id, err)
		}
		err = s.inside(func() error {
			if err := o.kind.set(o.object.Id, uid, gid, o.object.Mode); err != nil || !o.removed {
				return err
			}
			return o.kind.call(o.object.Id, ipcRemove, nil)
		})
		if err != nil {
			return err
		}
	}
	s.owners = nil
	return nil
}

// ownerOf is the owner in the engine's user namespace. Where the live spec's user
// could not give files away, it stays that user.
func (s *Subsystem) ownerOf(t *target.Task, o *state.IpcObject) (uid, gid uint32, err error) {
	uid, gid = o.Uid, o.Gid
	if a := &s.env.Frame.Allowed; !a.AnyUser() {
		uid, gid = a.UID, a.GID
	}
	hostUID, hostGID, ok, err := target.HostOwner(t.Proc, uid, gid)
	if err == nil && !ok {
		err = fmt.Errorf("its owner %d:%d does not exist in the container's user namespace", uid, gid)
	}
	return hostUID, hostGID, err
}
