// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// sharedShift leaves room for every page below it.
const sharedShift = 40

// sharedChunk is the payload of one record of a shared object: the import has
// it in the task's scratch memory, which is to stay small.
const sharedChunk = 512 << 10

// sharedEntity names the content of an object from an offset on, a multiple of
// the page size.
func sharedEntity(id, offset uint64) uint64 { return id<<sharedShift | offset/pageSize }

// sharedObject is memory of mmap(MAP_SHARED|MAP_ANONYMOUS) on its way out. All
// processes that have it are in the container, since only fork(2) shares it.
type sharedObject struct {
	id   uint64
	path string // the link of one of its mappings
	at   int64  // what is before it was exported
	huge bool   // MAP_HUGETLB
}

// sharedKey tells objects apart: there is a file system for each size of huge pages,
// 0 for small ones, and inodes are their own.
type sharedKey struct{ inode, huge uint64 }

// isShared: the mapping is one of a sharedObject.
func isShared(m *state.Mapping) bool {
	return m.Backing == state.Backing_BACKING_SHARED_ANONYMOUS || m.Backing == state.Backing_BACKING_HUGETLB && m.Shared
}

// exportShared pushes all shared objects with the first step, and their
// content with it and the following ones.
func (s *Subsystem) exportShared(ctx context.Context, out record.Sink) (record.Progress, error) {
	if !s.listed {
		if err := s.listShared(ctx, out); err != nil {
			return record.Progress{}, fmt.Errorf("memory: %w", err)
		}
		s.listed = true
	}
	var copied uint64
	if len(s.todo) == 0 {
		return record.Progress{Done: true, Advanced: true}, nil
	}
	buf := buffers.Get()
	defer buffers.Put(buf)
	for len(s.todo) > 0 && copied < stepBytes {
		n, err := s.todo[0].copy(ctx, buf, stepBytes-copied, out)
		copied += n
		s.bytes.Add(n)
		if errors.Is(err, io.EOF) {
			s.todo = s.todo[1:]
		} else if err != nil {
			return record.Progress{}, fmt.Errorf("memory: %s: %w", s.todo[0].name(), err)
		}
	}
	return record.Progress{Done: len(s.todo) == 0, Advanced: true, Bytes: copied}, nil
}

// listShared finds the objects of all processes.
func (s *Subsystem) listShared(ctx context.Context, out record.Sink) error {
	s.forgetLocations()
	err := s.huge.promised(s.env.Peer != nil)
	if err != nil {
		return err
	}
	if s.family, err = findFamily(s.env.Source.Processes()); err != nil {
		return err
	}
	for _, p := range s.env.Source.Processes() {
		if p.Traced == nil {
			return fmt.Errorf("process %d: %w", p.ID, target.ErrNotStopped)
		}
		if p.Space() != p {
			continue
		}
		maps, err := p.Proc.Maps()
		for i := range maps {
			err = errors.Join(err, recognise(&maps[i]))
		}
		if err == nil {
			err = s.listFiles(ctx, p.Proc, maps, out)
		}
		if err != nil {
			return fmt.Errorf("pid %d: %w", p.Pid, err)
		}
		for i := range maps {
			m := &maps[i]
			if m.Kind == procfs.MapSharedAnon || m.Kind == procfs.MapHugeAnon && m.Shared {
				if err := s.listOne(ctx, p, m, out); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// listOne pushes the description of an object if nobody has seen it before.
func (s *Subsystem) listOne(ctx context.Context, p *target.Process, m *procfs.Mapping, out record.Sink) error {
	huge, err := target.HugeDevice(m.Dev)
	key := sharedKey{m.Inode, huge}
	if err != nil || s.objects[key] != nil {
		return err
	}
	o := &sharedObject{id: uint64(len(s.objects) + 1), path: p.Proc.Path(fmt.Sprintf("map_files/%x-%x", m.Start, m.End)), huge: huge > 0}
	var st unix.Stat_t
	if err := unix.Stat(o.path, &st); err != nil {
		return fmt.Errorf("look at %s: %w", o.path, err)
	}
	s.objects[key], s.todo = o, append(s.todo, o)
	s.total.Add(uint64(st.Blocks) * 512)
	h := record.Header{Subsystem: Name, Kind: KindShared, Entity: o.id}
	return pushMessage(ctx, out, h, &state.SharedMemory{Size: uint64(st.Size), HugePageSize: huge})
}

// nameShared gives the mappings of shared objects their ids.
func (s *Subsystem) nameShared(mappings []*state.Mapping) error {
	for _, m := range mappings {
		if !isShared(m) {
			continue
		}
		o := s.objects[sharedKey{m.Object, m.HugePageSize}]
		if o == nil {
			return fmt.Errorf("mapping %#x-%#x of shared memory has appeared while the process was stopped", m.Start, end(m))
		}
		m.Object = o.id
	}
	return nil
}

func (o *sharedObject) name() string { return "shared memory " + o.path }

// copy pushes up to limit bytes of the object; io.EOF behind its last.
func (o *sharedObject) copy(ctx context.Context, buf []byte, limit uint64, out record.Sink) (n uint64, err error) {
	f, err := os.Open(o.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for n < limit {
		start, err := unix.Seek(int(f.Fd()), o.at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return n, io.EOF
		}
		if err != nil {
			return n, os.NewSyscallError("lseek(SEEK_DATA)", err)
		}
		stop, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return n, os.NewSyscallError("lseek(SEEK_HOLE)", err)
		}
		part := buf[:min(stop-start, sharedChunk)]
		if _, err := f.ReadAt(part, start); err != nil {
			return n, err
		}
		// hugetlbfs does not tell of holes.
		if !o.huge || !target.IsZero(part) {
			h := record.Header{Subsystem: Name, Kind: KindSharedPages, Entity: sharedEntity(o.id, uint64(start))}
			if err := out.Push(ctx, &record.Record{Header: h, Payload: part}); err != nil {
				return n, err
			}
		}
		n += uint64(len(part))
		o.at = start + int64(len(part))
	}
	return n, nil
}
