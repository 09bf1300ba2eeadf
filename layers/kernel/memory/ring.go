// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// The ring of io_setup(2) is mapped into the program, and its address is the
// program's handle for it. A new one is made, of the same size, and moved to the
// address. What was completed and not fetched is put in by requests of our own,
// whose events are overwritten, since the kernel counts the events itself.
//
// Requests that are under way are seen by nobody. They go on while the process
// is stopped, so an export waits until the ring stands still; a request that
// takes longer is lost, which the pre-flight warns of.
//
// Sources: io_setup(2), fs/aio.c (struct aio_ring, aio_setup_ring,
// aio_ring_mremap), include/uapi/linux/aio_abi.h.

const (
	ringMagic  = 0xa10a10a1
	ringHeader = 32
	eventSize  = 32
	// maxRing is the kernel's own bound on the events of a ring.
	maxRing = 0x10000000 / eventSize
	// maxEvents keeps records of mappings small: a program that leaves more
	// completed requests unfetched is refused.
	maxEvents = 256
	// aioMagic is the file system of rings, AIO_RING_MAGIC.
	aioMagic = ringMagic

	// A ring stands still if nothing was completed for ringStill; ringPatience is
	// how long that is waited for.
	ringStill    = 20 * time.Millisecond
	ringPatience = 2 * time.Second
)

// ringBytes is the size of the mapping of a ring.
func ringBytes(events uint64) uint64 { return wholePages(ringHeader + events*eventSize) }

// ringHead is the beginning of struct aio_ring.
type ringHead struct{ events, head, tail uint32 }

func decodeRing(b []byte) (ringHead, error) {
	le := binary.LittleEndian
	h := ringHead{le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])}
	if le.Uint32(b[16:]) != ringMagic || h.events == 0 || h.head >= h.events || h.tail >= h.events {
		return h, errors.New("it does not look like a ring: the program has written to it")
	}
	return h, nil
}

// isRing tells a ring from a file that was called so.
func isRing(t procfs.Task, m *procfs.Mapping) error {
	var on unix.Statfs_t
	if err := unix.Statfs(t.Path(fmt.Sprintf("map_files/%x-%x", m.Start, m.End)), &on); err != nil {
		return err
	}
	if on.Type != aioMagic {
		return &refusal{fmt.Sprintf("mapping %#x-%#x of %s", m.Start, m.End, m.Path), "it is a removed file that is called like an AIO ring", ""}
	}
	return nil
}

func ringWarning(t procfs.Task, m *procfs.Mapping) record.Finding {
	return record.Finding{
		Pid: t.Pid(), FD: -1, Subsystem: Name, Warning: true, What: fmt.Sprintf("AIO ring at %#x (io_setup(2))", m.Start),
		Why: "requests that are under way for longer than a moment when the process is stopped are not seen, and lost",
	}
}

// describeRing reads a ring of a stopped process, once it stands still.
func describeRing(p *target.Process, m *state.Mapping) error {
	if err := isRing(p.Proc, &procfs.Mapping{Start: m.Start, End: end(m), Path: "/[aio]"}); err != nil {
		return err
	}
	b := make([]byte, m.Length)
	read := func() (ringHead, error) {
		if err := p.Traced.ReadForce(m.Start, b); err != nil {
			return ringHead{}, err
		}
		return decodeRing(b)
	}
	h, err := read()
	for deadline := time.Now().Add(ringPatience); err == nil; {
		was := h
		time.Sleep(ringStill)
		if h, err = read(); err == nil && h == was {
			break
		}
		if time.Now().After(deadline) {
			return &refusal{fmt.Sprintf("AIO ring at %#x", m.Start), "requests are being completed all the time", "try again when there is less I/O"}
		}
	}
	if err != nil {
		return fmt.Errorf("AIO ring at %#x: %w", m.Start, err)
	}
	n := (h.tail + h.events - h.head) % h.events
	if n > maxEvents {
		return &refusal{fmt.Sprintf("AIO ring at %#x", m.Start), fmt.Sprintf("%d completed requests wait to be fetched, at most %d are carried", n, maxEvents), ""}
	}
	m.Object = uint64(h.events)
	if ringBytes(m.Object) != m.Length {
		return fmt.Errorf("AIO ring at %#x: %d events in %d bytes", m.Start, h.events, m.Length)
	}
	for i := range n {
		at := ringHeader + eventSize*((h.head+i)%h.events)
		m.AioEvents = append(m.AioEvents, b[at:at+eventSize]...)
	}
	return nil
}

// makeRing makes a ring at its address.
func makeRing(t *target.Task, m *state.Mapping) error {
	p := t.Plan()
	// The kernel doubles the number, adds two, and rounds up to whole pages; it
	// takes more for a host with many processors.
	at, handle := p.Out(8)
	p.Call(tracer.Syscall(unix.SYS_IO_SETUP, (m.Object-2)/2, at))
	if err := p.Run(); err != nil {
		return fmt.Errorf("io_setup for %d events (does fs.aio-max-nr allow it?): %w", m.Object, err)
	}
	ring := binary.LittleEndian.Uint64(handle)
	b := make([]byte, ringHeader)
	if err := t.Traced.ReadForce(ring, b); err != nil {
		return err
	}
	h, err := decodeRing(b)
	if err != nil || uint64(h.events) != m.Object {
		return errors.Join(err, fmt.Errorf("this kernel makes a ring of %d events where %d were: it has more processors, or another layout", h.events, m.Object))
	}
	const mayMove, fixed = 1, 2
	if err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_MREMAP, ring, m.Length, m.Length, mayMove|fixed, m.Start)}); err != nil {
		return fmt.Errorf("move it: %w", err)
	}
	return completeEvents(t, m)
}

// completeEvents puts events into an empty ring.
func completeEvents(t *target.Task, m *state.Mapping) error {
	n := len(m.AioEvents) / eventSize
	if n == 0 {
		return nil
	}
	p, le := t.Plan(), binary.LittleEndian
	fd := p.Open(tracer.Syscall(unix.SYS_MEMFD_CREATE, p.PutString("aio"), unix.MFD_CLOEXEC))
	// struct iocb: a pread of nothing from an empty file, which is complete when
	// io_submit(2) returns. IOCB_CMD_PREAD is 0.
	block := make([]byte, 64)
	le.PutUint32(block[20:], uint32(fd))
	request := p.Put(block)
	var list []byte
	for range n {
		list = le.AppendUint64(list, request)
	}
	p.Expect(tracer.Syscall(unix.SYS_IO_SUBMIT, m.Start, uint64(n), p.Put(list)), int64(n))
	p.Close(fd)
	if err := p.Run(); err != nil {
		return fmt.Errorf("complete %d requests: %w", n, err)
	}
	b := make([]byte, ringHeader)
	if err := t.Traced.ReadForce(m.Start, b); err != nil {
		return err
	}
	if h, err := decodeRing(b); err != nil || h.head != 0 || int(h.tail) != n {
		return errors.Join(err, fmt.Errorf("the ring has events from %d to %d in place of %d", h.head, h.tail, n))
	}
	return t.Traced.WriteForce(m.Start+ringHeader, m.AioEvents)
}
