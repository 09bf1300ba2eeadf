// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// An open file description that several processes have is made in one of them:
// in the first that has it, or where its subsystem wants to. Place keeps it
// there, out of the way, even if that process does not have it itself. When all
// descriptions are made, Share gives them to the others.

// perMessage is how many descriptors cross at once. The kernel's limit is 253
// (SCM_MAX_FD of include/net/scm.h), the task's that of its open files.
const perMessage = 64

// Wanted reports whether any process of the frame is to have a description.
func (f *Frame) Wanted(desc uint64) bool {
	for _, t := range f.Tasks() {
		if len(t.Table.slots[desc]) > 0 {
			return true
		}
	}
	return false
}

// Transit has a description made that no process is to have in the end: it is on
// its way to one in the queue of a socket. Until CloseOwn the first process has
// it, and OpenDescription finds it like any other. It is called before MoveStdio.
func (f *Frame) Transit(desc uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.transit == nil {
		f.transit = map[uint64]bool{}
	}
	f.transit[desc] = true
}

// placeTransit gives numbers, behind all that the process has, to what it has for a
// while: what threads with tables of their own want, and the first process what is in
// transit.
func (t *Task) placeTransit() {
	next := frameSocket + 1
	for fd := range t.Table.wanted {
		next = max(next, fd+1)
	}
	lend := func(desc uint64) {
		t.Table.Want(desc, Slot{FD: next, CloseOnExec: true})
		if t.Table.transit == nil {
			t.Table.transit = map[uint64]bool{}
		}
		t.Table.transit[desc] = true
		next++
	}
	for _, desc := range t.lacking() {
		lend(desc)
	}
	if t.ID != FirstTask {
		return
	}
	for _, desc := range slices.Sorted(maps.Keys(t.frame.transit)) {
		if !t.frame.Wanted(desc) { // else a process has it besides
			lend(desc)
		}
	}
}

// closeTransit closes what is on its way by now.
func (t *Task) closeTransit(p *Plan) error {
	for _, desc := range slices.Sorted(maps.Keys(t.Table.transit)) {
		fd := t.Table.slots[desc][0].FD
		if !t.Table.used[fd] {
			return fmt.Errorf("process %d: nobody carries description %d, which is on its way in a socket or a thread's own: the image is incomplete", t.ID, desc)
		}
		p.Close(fd)
		delete(t.Table.slots, desc)
		delete(t.Table.made, desc)
		delete(t.Table.wanted, fd)
	}
	t.Table.transit = nil
	return nil
}

// OpenDescription duplicates a description that was made in any process into the
// engine. The caller closes it.
func (f *Frame) OpenDescription(desc uint64) (*Duplicate, error) {
	at, ok := f.madeIn()[desc]
	if !ok {
		return nil, fmt.Errorf("no process has description %d", desc)
	}
	return at.task.Duplicate(at.fd)
}

// parkable bounds the descriptions that are only kept for others in t, and
// those that are on their way to it.
func (f *Frame) parkable(t *Task) int {
	n := 0
	for _, o := range f.Tasks() {
		if o != t {
			n += len(o.Table.slots)
		}
	}
	if n > 0 {
		n += perMessage
	}
	return n
}

// place is where a description is.
type place struct {
	task *Task
	fd   int
}

// madeIn finds the descriptions that exist.
func (f *Frame) madeIn() map[uint64]place {
	all := map[uint64]place{}
	for _, t := range f.Tasks() {
		for desc, fd := range t.Table.made {
			all[desc] = place{t, fd}
		}
	}
	return all
}

// Share gives every process the descriptions that were made in others. It is called
// when all are made, and does it once.
func (f *Frame) Share() error {
	f.mu.Lock()
	done := f.shared
	f.shared = true
	f.mu.Unlock()
	if done {
		return nil
	}
	all := f.madeIn()
	for _, t := range f.Tasks() {
		var lacks []uint64
		for desc := range t.Table.slots {
			_, has := t.Table.made[desc]
			// What nobody has is told by Missing.
			if _, made := all[desc]; made && !has {
				lacks = append(lacks, desc)
			}
		}
		slices.Sort(lacks)
		for part := range slices.Chunk(lacks, perMessage) {
			if err := t.fetch(part, all); err != nil {
				return fmt.Errorf("process %d: %w", t.ID, err)
			}
		}
	}
	return nil
}

// fetch takes descriptions that other processes have and places them.
func (t *Task) fetch(descs []uint64, from map[uint64]place) error {
	fds, err := t.take(descs, from)
	if err != nil {
		return err
	}
	p := t.Plan()
	for i, desc := range descs {
		if err := p.Place(desc, fds[i]); err != nil {
			return err
		}
	}
	return p.Run()
}

// Borrow gives the task a descriptor of a description that another process
// has, aside of all that the image wants. The caller closes it.
func (t *Task) Borrow(desc uint64) (int, error) {
	fds, err := t.take([]uint64{desc}, t.frame.madeIn())
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// take copies descriptors out of other processes into this one.
func (t *Task) take(descs []uint64, from map[uint64]place) ([]int, error) {
	files := make([]*os.File, 0, len(descs))
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, desc := range descs {
		at, ok := from[desc]
		if !ok {
			return nil, fmt.Errorf("no process has description %d", desc)
		}
		f, err := at.task.open(at.fd)
		if err != nil {
			return nil, fmt.Errorf("description %d: %w", desc, err)
		}
		files = append(files, f)
	}
	return t.Accept(files)
}

// Duplicate is OpenDescriptor for a task under construction. The caller closes
// it.
func (t *Task) Duplicate(fd int) (*Duplicate, error) {
	pidfd, err := Pidfd(t.Pid)
	if err != nil {
		return nil, fmt.Errorf("open a pidfd of process %d: %w", t.ID, err)
	}
	defer unix.Close(pidfd)
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("take descriptor %d of process %d: %w", fd, t.ID, err)
	}
	return &Duplicate{n}, nil
}

// open is Duplicate as a file, for what is no socket of the application's yet.
func (t *Task) open(fd int) (*os.File, error) {
	d, err := t.Duplicate(fd)
	if err != nil {
		return nil, err
	}
	return os.NewFile(d.Fd(), "description"), nil
}

// Accept gives the task descriptors of files that the engine has open, aside of
// all that the image wants, in their order; at most perMessage. The caller
// closes them.
func (t *Task) Accept(files []*os.File) ([]int, error) {
	if len(files) > perMessage {
		return nil, fmt.Errorf("%d descriptors at once, at most %d", len(files), perMessage)
	}
	t.frame.sending.Lock()
	defer t.frame.sending.Unlock()
	nums := make([]int, len(files))
	for i, f := range files {
		nums[i] = int(f.Fd())
	}
	if err := unix.Sendmsg(t.frame.Socket, []byte{0}, unix.UnixRights(nums...), nil, unix.MSG_NOSIGNAL); err != nil {
		return nil, fmt.Errorf("send %d descriptors to the frame: %w", len(files), err)
	}
	return t.receive(len(files))
}

// receive takes one message from the frame's socket. The kernel gives each
// descriptor the lowest free number; they are moved aside.
func (t *Task) receive(n int) ([]int, error) {
	p := t.Plan()
	space := unix.CmsgSpace(4 * n)
	control, answer := p.Out(space)
	iov := binary.LittleEndian.AppendUint64(nil, p.Put(make([]byte, 8)))
	iov = binary.LittleEndian.AppendUint64(iov, 1)
	// struct user_msghdr: name and its length, vector and its length, control
	// and its length, flags.
	var hdr []byte
	for _, v := range []uint64{0, 0, p.Put(iov), 1, control, uint64(space), 0} {
		hdr = binary.LittleEndian.AppendUint64(hdr, v)
	}
	p.Expect(tracer.Syscall(unix.SYS_RECVMSG, uint64(t.socket), p.Put(hdr), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC), 1)
	got, aside := make([]int, n), make([]int, n)
	for i := range got {
		got[i] = t.Table.lowest(0)
		t.Table.used[got[i]] = true
	}
	for i, fd := range got {
		aside[i] = p.DupAbove(fd, t.Table.Aside())
	}
	for _, fd := range got {
		p.Close(fd)
	}
	if err := p.Run(); err != nil {
		return nil, fmt.Errorf("receive %d descriptors (is the limit of open files large enough?): %w", n, err)
	}
	return aside, checkRights(answer, got)
}

var errRights = errors.New("the descriptors that arrived are not those that were sent: somebody else uses the frame's socket")

// checkRights compares what the kernel wrote with what was expected.
func checkRights(control []byte, want []int) error {
	msgs, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(msgs) != 1 {
		return errors.Join(errRights, err)
	}
	got, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || !slices.Equal(got, want) {
		return errors.Join(errRights, err)
	}
	return nil
}
