// SPDX-License-Identifier: Apache-2.0

package target

import "golang.org/x/sys/unix"

// planBlock is what a plan takes from the scratch area at once, in bytes: the
// parameters of a few hundred calls, so that they cross in one write.
const planBlock = 64 << 10

// block is a stretch of the task's scratch memory that a plan fills.
type block struct {
	base uint64
	buf  []byte
	size int
}

// output is memory of the task that a plan reads when its calls are made.
type output struct {
	addr uint64
	buf  []byte
}

// Put gives b to the calls of the plan and returns where it will be in the
// task's memory: until Run, which frees it. An error is reported by Run.
func (p *Plan) Put(b []byte) uint64 {
	addr, room := p.room(len(b))
	copy(room, b)
	return addr
}

// PutString is Put of s and a NUL byte.
func (p *Plan) PutString(s string) uint64 {
	addr, room := p.room(len(s) + 1)
	copy(room, s)
	return addr
}

// Out reserves n zero bytes for the calls to write to. The slice holds what
// they wrote after Run.
func (p *Plan) Out(n int) (uint64, []byte) {
	addr, _ := p.room(n)
	o := output{addr, make([]byte, n)}
	p.outs = append(p.outs, o)
	return addr, o.buf
}

// room takes n bytes, 8-aligned; the slice is the local copy. After a failure
// it returns memory that never gets to the task, since Run will fail.
func (p *Plan) room(n int) (uint64, []byte) {
	need := (n + 7) &^ 7
	if k := len(p.blocks); k > 0 && p.blocks[k-1].size-len(p.blocks[k-1].buf) >= need {
		return p.blocks[k-1].take(need, n)
	}
	if p.err == nil && p.scratch == nil {
		if p.scratch, p.err = p.task.Traced.Scratch(); p.err == nil {
			p.mark = p.scratch.Mark()
		}
	}
	b := &block{size: max(need, planBlock)}
	if p.err == nil {
		b.base, p.err = p.scratch.Alloc(b.size)
	}
	b.buf = make([]byte, 0, b.size)
	p.blocks = append(p.blocks, b)
	return b.take(need, n)
}

func (b *block) take(need, n int) (uint64, []byte) {
	at := len(b.buf)
	b.buf = b.buf[:at+need]
	return b.base + uint64(at), b.buf[at : at+n]
}

// send writes the parameters into the task.
func (p *Plan) send() error {
	if p.err != nil {
		return p.err
	}
	for _, b := range p.blocks {
		if err := p.task.Traced.Write(b.base, b.buf); err != nil {
			return err
		}
	}
	return nil
}

// fetch reads what the calls wrote.
func (p *Plan) fetch() error {
	for _, o := range p.outs {
		if err := p.task.Traced.Read(o.addr, o.buf); err != nil {
			return err
		}
	}
	return nil
}

// free gives the scratch memory back.
func (p *Plan) free() {
	if p.scratch != nil {
		p.scratch.Release(p.mark)
		p.scratch, p.blocks = nil, nil
	}
}

// SelfFD is the path by which the task reopens its own descriptor.
const SelfFD = "/proc/self/fd/"

// OpenFlags are the O_* that open(2) keeps for a description and that can be
// given when a file is opened again: everything but those that act once
// (O_CREAT, O_EXCL, O_TRUNC, O_NOCTTY) and O_TMPFILE's own bit.
const OpenFlags = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_DIRECT | unix.O_NOATIME |
	unix.O_DSYNC | unix.O_SYNC | unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | openLarge

// openLarge is O_LARGEFILE, which the kernel sets on every 64-bit open.
const openLarge = 0x8000

// StatusFlags are those that F_SETFL can change (but O_ASYNC, which needs an
// owner).
const StatusFlags = unix.O_APPEND | unix.O_NONBLOCK | unix.O_DIRECT | unix.O_NOATIME
