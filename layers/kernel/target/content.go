// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// ContentBytes is the payload of one record of a file's content.
	ContentBytes = 512 << 10
	// ContentGrain: a record's entity counts offsets in this unit.
	ContentGrain = 4096
	// objectShift leaves room for every offset below it.
	objectShift = 40
	// MaxObjects is what fits above.
	MaxObjects = 1<<(64-objectShift) - 1
	// MaxSize is the largest size or offset of a file that an image may name:
	// what entities of contents can count.
	MaxSize = ContentGrain << objectShift
)

// ContentEntity names the content of an object from an offset on, a multiple of
// the grain.
func ContentEntity(object uint64, offset int64) uint64 {
	return object<<objectShift | uint64(offset)/ContentGrain
}

// SplitContentEntity is its inverse.
func SplitContentEntity(e uint64) (object uint64, offset int64) {
	return e >> objectShift, int64(e&(1<<objectShift-1)) * ContentGrain
}

// Content reads what a file holds, without its holes, in bounded steps.
type Content struct {
	// Path is a magic link that leads to the file. It is opened anew with each
	// step: no offset of the application's moves.
	Path string
	// Sparse: pieces of zeroes are passed over. hugetlbfs, which has no SEEK_DATA,
	// does not tell of holes.
	Sparse bool
	offset int64 // what is before it was read
	holds  holdings
}

// holdings is how much of a file on hugetlbfs is there, which it tells as its blocks,
// and how much was found of it. All of a terabyte would have to be read to find out that
// the rest of it is a hole.
type holdings struct {
	page, there, found int64 // in bytes
	last               int64 // the end of the last page that was found
}

// look looks how much there is.
func (h *holdings) look(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	const block = 512 // stat(2)
	h.page, h.there = max(st.Blksize, 1), st.Blocks*block
	return nil
}

// all reports that nothing is to be found from an offset on.
func (h *holdings) all(from int64) bool { return h.found >= h.there && from >= h.last }

// note takes in a piece, which does not reach over the end of a page, that holds
// something.
func (h *holdings) note(at int64) {
	if at >= h.last {
		h.found += h.page
		h.last = at/h.page*h.page + h.page
	}
}

var contentBuffers = sync.Pool{New: func() any { b := make([]byte, ContentBytes); return &b }}

// Next hands up to about limit bytes to push, in pieces that begin at multiples
// of the grain, and returns how many. done: there is nothing behind them. push
// must not keep the slice.
func (c *Content) Next(limit uint64, push func(offset int64, b []byte) error) (n uint64, done bool, err error) {
	fd, err := unix.Open(c.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(c.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return 0, false, os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	if c.Sparse {
		if err := c.holds.look(fd); err != nil {
			return 0, false, err
		}
	}
	buf := contentBuffers.Get().(*[]byte)
	defer contentBuffers.Put(buf)
	for n < limit {
		start, end, err := nextData(fd, c.offset)
		if err != nil || start < 0 {
			return n, err == nil, err
		}
		for at := start; at < end && n < limit; {
			if c.Sparse && c.holds.all(at) {
				return n, true, nil
			}
			got, err := unix.Pread(fd, (*buf)[:min(ContentBytes, end-at)], at)
			if err != nil {
				return n, false, os.NewSyscallError("pread", err)
			}
			if got == 0 {
				return n, false, errors.New("it became shorter while it was read: somebody outside of the container writes to it")
			}
			if b := (*buf)[:got]; !c.Sparse || !IsZero(b) {
				if c.Sparse {
					c.holds.note(at)
				}
				if err := push(at, b); err != nil {
					return n, false, err
				}
			}
			at += int64(got)
			n += uint64(got)
			// A short read in the middle would leave the grain.
			if at < end && at%ContentGrain != 0 {
				n -= uint64(at % ContentGrain)
				at -= at % ContentGrain
			}
			c.offset = at
		}
	}
	return n, false, nil
}

// IsZero reports whether b holds nothing but zeroes.
func IsZero(b []byte) bool {
	// Behind its first byte it is compared with itself, one byte before.
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:])
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
	return max(from, start&^(ContentGrain-1)), end, nil
}
