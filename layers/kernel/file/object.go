// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	// chunkBytes is the payload of one record of content.
	chunkBytes = 512 << 10
	// stepBytes is what one export step copies at most.
	stepBytes = 64 << 20
	// contentGrain: a record's entity counts offsets in this unit.
	contentGrain = 4096
	// objectShift leaves room for every offset below it.
	objectShift = 40
	// maxObjects is what fits above.
	maxObjects = 1<<(64-objectShift) - 1
)

// contentEntity names a chunk of an object.
func contentEntity(object uint64, offset int64) uint64 {
	return object<<objectShift | uint64(offset)/contentGrain
}

// splitEntity is its inverse.
func splitEntity(e uint64) (object uint64, offset int64) {
	return e >> objectShift, int64(e&(1<<objectShift-1)) * contentGrain
}

// content is the rest of a nameless file that has to be exported.
type content struct {
	object uint64
	path   string // the magic link of a descriptor that leads to it
	what   string
	offset int64
}

// exportObject returns the id of a nameless file and pushes it if it is new.
func (s *Subsystem) exportObject(ctx context.Context, p *target.Process, d *target.Descriptor, msg *state.FileObject, e *export, out record.Sink) (uint64, error) {
	key := fileID{d.Stat.Dev, d.Stat.Ino}
	s.mu.Lock()
	id, known := s.objects[key]
	if !known {
		id = uint64(len(s.objects) + 1)
		s.objects[key] = id
	}
	s.mu.Unlock()
	if known {
		return id, nil
	}
	if id > maxObjects {
		return 0, fmt.Errorf("more than %d files without a name", maxObjects)
	}
	path := p.Proc.Path(fmt.Sprintf("fd/%d", d.FD))
	if msg.Memfd {
		var err error
		if msg.Seals, err = sealsOf(path); err != nil {
			return 0, err
		}
	}
	s.total.Add(uint64(d.Stat.Blocks) * 512)
	e.contents = append(e.contents, content{object: id, path: path, what: describeLink(d)})
	return id, push(ctx, out, record.Header{Kind: KindObject, Entity: id}, msg)
}

// sealsOf reads a memfd's seals through a description of our own.
func sealsOf(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return 0, fmt.Errorf("read the seals: %w", err)
	}
	return uint32(n), nil
}

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// exportContents copies what nameless files hold, up to stepBytes.
func (s *Subsystem) exportContents(ctx context.Context, e *export, out record.Sink) (uint64, error) {
	var copied uint64
	for len(e.contents) > 0 && copied < stepBytes {
		c := &e.contents[0]
		n, done, err := c.copy(ctx, stepBytes-copied, out)
		if err != nil {
			return copied, fmt.Errorf("content of %s: %w", c.what, err)
		}
		copied += n
		s.bytes.Add(n)
		if done {
			e.contents = e.contents[1:]
		}
	}
	return copied, nil
}

// copy pushes the data of the file from c.offset on, at most limit bytes. The
// file is opened anew: no offset of the application's moves.
func (c *content) copy(ctx context.Context, limit uint64, out record.Sink) (n uint64, done bool, err error) {
	fd, err := unix.Open(c.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(c.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return 0, false, os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	for n < limit {
		start, end, err := nextData(fd, c.offset)
		if err != nil || start < 0 {
			return n, err == nil, err
		}
		for at := start; at < end && n < limit; {
			got, err := unix.Pread(fd, (*buf)[:min(chunkBytes, end-at)], at)
			if err != nil {
				return n, false, os.NewSyscallError("pread", err)
			}
			if got == 0 {
				return n, false, errors.New("it became shorter while it was read: somebody outside of the container writes to it")
			}
			h := record.Header{Subsystem: Name, Kind: KindContent, Entity: contentEntity(c.object, at)}
			if err := out.Push(ctx, &record.Record{Header: h, Payload: (*buf)[:got]}); err != nil {
				return n, false, err
			}
			at += int64(got)
			n += uint64(got)
			// A short read in the middle would leave the grain.
			if at < end && at%contentGrain != 0 {
				n -= uint64(at % contentGrain)
				at -= at % contentGrain
			}
			c.offset = at
		}
	}
	return n, false, nil
}

// nextData finds the next range that is no hole, from a multiple of the grain
// on; start is -1 behind the last. A file system without SEEK_DATA calls the
// whole file data.
func nextData(fd int, from int64) (start, end int64, err error) {
	start, err = unix.Seek(fd, from, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return -1, 0, nil
	}
	if err != nil {
		return 0, 0, os.NewSyscallError("lseek(SEEK_DATA)", err)
	}
	if end, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
		return 0, 0, os.NewSyscallError("lseek(SEEK_HOLE)", err)
	}
	return max(from, start&^(contentGrain-1)), end, nil
}
