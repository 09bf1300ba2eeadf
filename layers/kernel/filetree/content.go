// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

const (
	// pieceBytes is what has a checksum of its own, grainBytes what may be a
	// hole in it, readBytes what is read at once and what an item holds at most.
	pieceBytes = 64 << 10
	grainBytes = 4 << 10
	readBytes  = 1 << 20
)

// noData is the checksum of a piece of zeros, with or without storage.
const noData = 0

// content sends the entry of a regular file, if it is new, and those pieces of
// its content that are.
func (w *walk) content(f *os.File, entry *state.TreeEntry, n *node, fresh bool) error {
	c := &contents{walk: w, f: f, entry: entry, n: n, fresh: fresh}
	// Nobody will ask for the checksums behind the only pass.
	c.once = w.final && fresh
	if fresh {
		n.pieces = nil
	}
	if keep := int((entry.Size + pieceBytes - 1) / pieceBytes); keep < len(n.pieces) {
		n.pieces = n.pieces[:keep]
	}
	if err := w.sendEntry(entry, n); err != nil || w.o.Look {
		return err
	}
	c.sent = fresh || w.sentLast == n
	for at := int64(0); at < entry.Size; {
		start, end, err := nextData(int(f.Fd()), at, entry.Size)
		if err != nil {
			return err
		}
		if err := c.holes(at, start); err != nil {
			return err
		}
		if at, err = c.changed(start, end); err != nil {
			return err
		}
		if at < end {
			break // it became shorter
		}
	}
	return nil
}

// togetherFrom is how much content is summed by several threads, in bytes: less
// is not worth it.
const togetherFrom = 4 << 20

// changed is data for a range of which most is expected to be as it was, while
// the container waits: several threads sum it up first.
func (c *contents) changed(start, end int64) (int64, error) {
	if !c.final || c.fresh || c.o.Workers < 2 || end-start < togetherFrom {
		return c.data(start, end)
	}
	sums := c.sums(start, end)
	for at := start; at < end; {
		from := at
		for at < end && c.known(at) != sums[(at-start)/pieceBytes] {
			at = min((at/pieceBytes+1)*pieceBytes, end)
		}
		if from < at {
			if got, err := c.data(from, at); err != nil || got < at {
				return got, err
			}
			continue
		}
		at = min((at/pieceBytes+1)*pieceBytes, end)
	}
	return end, nil
}

// known is the checksum of what the other side has of a piece.
func (c *contents) known(at int64) uint64 {
	if i := int(at / pieceBytes); i < len(c.n.pieces) {
		return c.n.pieces[i]
	}
	return noData
}

// unread is the sum of a piece that could not be read whole; no piece has it.
const unread = 2

// sums are the checksums of the pieces of a range.
func (c *contents) sums(start, end int64) []uint64 {
	sums := make([]uint64, (end-start+pieceBytes-1)/pieceBytes)
	const stride = readBytes / pieceBytes // pieces that a thread takes at once
	var next atomic.Int64
	var wg sync.WaitGroup
	for range c.o.Workers {
		wg.Go(func() {
			buf := make([]byte, readBytes)
			for {
				i := (next.Add(1) - 1) * stride
				if i >= int64(len(sums)) || c.ctx.Err() != nil {
					return
				}
				at := start + i*pieceBytes
				want := buf[:min(readBytes, end-at)]
				n, _ := c.f.ReadAt(want, at)
				for j := i; len(want) > 0; j++ {
					piece := want[:min(pieceBytes, len(want))]
					want = want[len(piece):]
					if sums[j] = unread; n >= len(piece) {
						sums[j] = c.sum(piece)
					}
					n -= len(piece)
				}
			}
		})
	}
	wg.Wait()
	return sums
}

// sum is the checksum of a piece.
func (w *walk) sum(b []byte) uint64 {
	if zero(b) {
		return noData
	}
	return maphash.Bytes(w.seed, b) | 1
}

// contents is one file that is being compared.
type contents struct {
	*walk
	f     *os.File
	entry *state.TreeEntry
	n     *node
	fresh bool
	once  bool
	// sent: the file's entry is the last that the other side saw.
	sent bool
}

// nextData finds the next range that is no hole, in whole pieces, from at on,
// which is the start of one; both ends are size behind the last.
func nextData(fd int, at, size int64) (start, end int64, err error) {
	start, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return at, size, nil // the file system knows of no holes
	case err != nil:
		return 0, 0, os.NewSyscallError("lseek(SEEK_DATA)", err)
	}
	if end, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
		return 0, 0, os.NewSyscallError("lseek(SEEK_HOLE)", err)
	}
	start = max(at, start&^(pieceBytes-1))
	end = (end + pieceBytes - 1) &^ (pieceBytes - 1)
	return min(start, size), min(end, size), nil
}

// holes sends that from at to end is no data any more.
func (c *contents) holes(at, end int64) error {
	for from := at; from < end; {
		i := int(from / pieceBytes)
		if i >= len(c.n.pieces) {
			return nil
		}
		to := min((from/pieceBytes+1)*pieceBytes, end)
		if c.n.pieces[i] != noData {
			if err := c.hole(from, to); err != nil {
				return err
			}
			c.n.pieces[i] = noData
		}
		from = to
	}
	return nil
}

// data reads and compares a range; it returns where the file ended.
func (c *contents) data(at, end int64) (int64, error) {
	if c.buf == nil {
		c.buf = make([]byte, readBytes)
	}
	for at < end {
		if err := c.ctx.Err(); err != nil {
			return at, err
		}
		want := c.buf[:min(readBytes-at%pieceBytes, end-at)]
		got, err := c.f.ReadAt(want, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return at, err
		}
		for b, from := want[:got], at; len(b) > 0; {
			piece := b[:min(len(b), pieceBytes)]
			if err := c.piece(piece, from); err != nil {
				return at, err
			}
			b, from = b[len(piece):], from+int64(len(piece))
		}
		at += int64(got)
		if got < len(want) {
			return at, nil
		}
	}
	return at, nil
}

// piece compares one piece, and sends it if it is new.
func (c *contents) piece(b []byte, at int64) error {
	var sum uint64
	switch {
	case !c.once:
		sum = c.sum(b)
	case !zero(b):
		sum = 1
	}
	was, i := c.known(at), int(at/pieceBytes)
	if !c.once {
		for len(c.n.pieces) <= i {
			c.n.pieces = append(c.n.pieces, noData)
		}
		c.n.pieces[i] = sum
	}
	switch {
	case sum == was:
		return nil
	case sum == noData:
		return c.hole(at, at+int64(len(b)))
	case was == noData:
		return c.runs(b, at)
	}
	return c.bytes(b, at)
}

// runs sends what is not zero of a piece that is a hole on the other side.
func (c *contents) runs(b []byte, at int64) error {
	for len(b) > 0 {
		n := 0
		for n < len(b) && !zero(b[n:min(n+grainBytes, len(b))]) {
			n = min(n+grainBytes, len(b))
		}
		if n > 0 {
			if err := c.bytes(b[:n], at); err != nil {
				return err
			}
		}
		n = min(n+grainBytes, len(b)) // the one behind is a hole
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func (c *contents) bytes(b []byte, at int64) error {
	c.stats.Bytes += uint64(len(b))
	return c.item(&state.TreeItem{Of: &state.TreeItem_Data{Data: &state.TreeData{Offset: at, Data: b}}})
}

func (c *contents) hole(at, end int64) error {
	return c.item(&state.TreeItem{Of: &state.TreeItem_Hole{Hole: &state.TreeHole{Offset: at, Length: end - at}}})
}

// item sends a part of the content, behind the file's entry.
func (c *contents) item(item *state.TreeItem) error {
	if !c.sent {
		c.sent = true
		if err := c.emit(&state.TreeItem{Of: &state.TreeItem_Entry{Entry: c.entry}}); err != nil {
			return err
		}
	}
	return c.send(item)
}

var zeros [grainBytes]byte

// zero reports whether there are only zeros.
func zero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
