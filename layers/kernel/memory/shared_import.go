// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// sharedCopy is a shared object on its way in: made by the first process, so
// that it is the container's, and mapped by all that have it.
type sharedCopy struct {
	size uint64
	huge uint64   // the size of its pages, 0 for small ones
	file *os.File // the engine's own, closed when all is mapped
	fd   int      // the first process's, by which the content is written
}

// maxShared bounds the id and the size of an object.
const maxShared = 1<<(64-sharedShift) - 1

// receiveShared takes a record of a shared object.
func (s *Subsystem) receiveShared(in *record.Record) (record.Progress, error) {
	p := record.Progress{Done: true, Advanced: true, Entities: 1}
	t := s.env.Frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return p, fmt.Errorf("memory: %w", target.ErrNotStopped)
	}
	var err error
	switch in.Kind {
	case KindShared:
		err = s.makeShared(t, in)
	case KindSharedPages:
		err = s.fillShared(t, in)
		p.Bytes = uint64(len(in.Payload))
	case KindObject:
		s.files = append(s.files, in.Entity)
		err = s.env.Frame.MakeObject(in)
	case KindContent:
		p.Bytes, err = s.env.Frame.FillObject(in)
		s.bytes.Add(p.Bytes)
	default:
		err = fmt.Errorf("%w: it belongs to no process", errLayout)
	}
	if err != nil {
		return p, fmt.Errorf("memory: %s: %w", in.Header, err)
	}
	return p, nil
}

// makeShared makes the object while the first process is still empty: it maps
// all of it somewhere for the moment, and is given a descriptor for it.
func (s *Subsystem) makeShared(t *target.Task, in *record.Record) error {
	var m state.SharedMemory
	if err := proto.Unmarshal(in.Payload, &m); err != nil {
		return fmt.Errorf("%w: %w", errLayout, err)
	}
	if in.Entity == 0 || in.Entity > maxShared || s.shared[in.Entity] != nil || !validRange(pageSize, m.Size) || m.HugePageSize > 0 && (!target.ValidHugeSize(m.HugePageSize) || m.Size%m.HugePageSize != 0) {
		return fmt.Errorf("%w: shared memory of %#x bytes", errLayout, m.Size)
	}
	flags := unix.MAP_SHARED | unix.MAP_ANONYMOUS
	if m.HugePageSize > 0 {
		if err := target.CheckHugeSize(m.HugePageSize); err != nil {
			return err
		}
		// Whether pages are reserved is what each of its mappings says.
		flags |= hugeFlags(m.HugePageSize) | unix.MAP_NORESERVE
	}
	calls := []tracer.Call{tracer.Mmap(0, m.Size, unix.PROT_READ|unix.PROT_WRITE, flags, -1, 0)}
	if err := t.Run(calls); err != nil {
		return fmt.Errorf("make shared memory of %d bytes: %w", m.Size, err)
	}
	at := uint64(calls[0].Ret)
	f, err := os.OpenFile(t.Proc.Path(fmt.Sprintf("map_files/%x-%x", at, at+m.Size)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fds, err := t.Accept([]*os.File{f})
	if err == nil {
		err = t.Run([]tracer.Call{tracer.Munmap(at, m.Size)})
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t.Table.Keep(fds[0])
	s.shared[in.Entity] = &sharedCopy{size: m.Size, huge: m.HugePageSize, file: f, fd: fds[0]}
	s.entities.Add(1)
	return nil
}

// fillShared writes content, by the process itself: its pages are charged to
// the container.
func (s *Subsystem) fillShared(t *target.Task, in *record.Record) error {
	id, offset := in.Entity>>sharedShift, in.Entity&(1<<sharedShift-1)*pageSize
	o, n := s.shared[id], uint64(len(in.Payload))
	if o == nil || n == 0 || offset > o.size || n > o.size-offset {
		return fmt.Errorf("%w: %d bytes at %#x of shared memory %d", errLayout, n, offset, id)
	}
	if o.huge > 0 {
		s.bytes.Add(n)
		return t.WriteHuge(o.fd, o.huge, offset, in.Payload)
	}
	p := t.Plan()
	p.Expect(tracer.Syscall(unix.SYS_PWRITE64, uint64(o.fd), p.Put(in.Payload), n, offset), int64(n))
	if err := p.Run(); err != nil {
		return fmt.Errorf("write shared memory: %w", err)
	}
	s.bytes.Add(n)
	return nil
}

// descriptors are a process's own, by what they lead to.
type descriptors map[mappedObject]int

// mappedObject is shared memory, or a file without a path.
type mappedObject struct {
	backing state.Backing
	id      uint64
	// write: the mapping may become writable, so the descriptor has to be.
	write bool
}

// objectOf names what a mapping that has no path maps; ok is false if there is
// nothing like that.
func objectOf(m *state.Mapping) (o mappedObject, ok bool) {
	switch {
	case isShared(m):
		return mappedObject{backing: m.Backing, id: m.Object}, true
	case m.Backing == state.Backing_BACKING_OBJECT:
		return mappedObject{m.Backing, m.Object, m.Shared && m.MayWrite}, true
	}
	return o, false
}

// openShared gives a process descriptors of all that it maps.
func (s *Subsystem) openShared(t *target.Task, mappings []*state.Mapping) (descriptors, error) {
	d := descriptors{}
	for _, m := range mappings {
		o, ok := objectOf(m)
		if _, has := d[o]; has || !ok {
			continue
		}
		fd, err := s.openOne(t, m, o)
		if err != nil {
			return nil, err
		}
		d[o] = fd
	}
	return d, nil
}

func (s *Subsystem) openOne(t *target.Task, m *state.Mapping, o mappedObject) (int, error) {
	var f *os.File
	if o.backing == state.Backing_BACKING_OBJECT {
		var err error
		if f, err = s.env.Frame.OpenObject(o.id, o.write); err != nil {
			return -1, fmt.Errorf("%w: mapping %#x: %w", errLayout, m.Start, err)
		}
		defer f.Close()
	} else if c := s.shared[o.id]; c == nil || c.file == nil || c.huge != m.HugePageSize {
		return -1, fmt.Errorf("%w: mapping %#x of shared memory %d, which is not in the image", errLayout, m.Start, o.id)
	} else {
		f = c.file
	}
	fds, err := t.Accept([]*os.File{f})
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

func (d descriptors) close(t *target.Task) error {
	p := t.Plan()
	for _, fd := range d {
		p.Close(fd)
	}
	return p.Run()
}

// closeShared closes what only the import needed.
func (s *Subsystem) closeShared() error {
	var errs []error
	if t := s.env.Frame.Task(target.FirstTask); t != nil && t.Traced != nil && len(s.shared) > 0 {
		p := t.Plan()
		for _, o := range s.shared {
			if o.file != nil {
				p.Close(o.fd)
			}
		}
		errs = append(errs, p.Run())
	}
	for _, o := range s.shared {
		if o.file != nil {
			errs = append(errs, o.file.Close())
			o.file = nil
		}
	}
	return errors.Join(errs...)
}

// settleExecutables prepares the files without a path that processes execute.
func (s *Subsystem) settleExecutables() error {
	for _, l := range s.imports {
		if id := l.space.GetExeObject(); id != 0 {
			if err := s.env.Frame.SettleExecutable(id); err != nil {
				return fmt.Errorf("memory: %w", err)
			}
		}
	}
	return nil
}

// finishFiles gives the mapped files their modes and seals.
func (s *Subsystem) finishFiles() error {
	for _, id := range s.files {
		if err := s.env.Frame.FinishObject(id); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
	}
	return nil
}
