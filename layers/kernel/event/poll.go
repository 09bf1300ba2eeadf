// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// anyEvent is what a one-shot registration is made to fire by.
const anyEvent = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLRDNORM | unix.EPOLLWRNORM

// register adds the registrations of the process's epoll instances. Their order
// does not matter, not even between instances that watch each other.
func (s *Subsystem) register(id record.ProcessID) error {
	t, err := s.env.Frame.Stopped(id)
	if err != nil {
		return err
	}
	for _, desc := range s.mine(id) {
		m, ok := s.in[desc].(*state.EventPoll)
		if !ok {
			continue
		}
		w := &watcher{task: t, fd: t.Table.Slots(desc)[0].FD, borrowed: map[uint64]int{}}
		if err := errors.Join(w.addAll(m), w.giveBack()); err != nil {
			return fmt.Errorf("epoll instance at descriptor %d of process %d: %w", w.fd, id, err)
		}
	}
	return nil
}

// watcher is an epoll instance that gets its registrations.
type watcher struct {
	task *target.Task
	fd   int
	// borrowed are descriptions that only other processes have: one of them
	// registered its own in an instance that it shares with this one.
	borrowed map[uint64]int
}

// find is a descriptor of a target, which is borrowed if need be.
func (w *watcher) find(desc uint64) (int, error) {
	if slots := w.task.Table.Slots(desc); len(slots) > 0 {
		return slots[0].FD, nil
	}
	if fd, ok := w.borrowed[desc]; ok {
		return fd, nil
	}
	fd, err := w.task.Borrow(desc)
	if err != nil {
		return -1, fmt.Errorf("it watches description %d: %w", desc, err)
	}
	w.borrowed[desc] = fd
	return fd, nil
}

// giveBack closes what was borrowed.
func (w *watcher) giveBack() error {
	p := w.task.Plan()
	for _, fd := range w.borrowed {
		p.Close(fd)
	}
	return p.Run()
}

// addAll adds those first that have fired, while nothing else can be taken for
// them.
func (w *watcher) addAll(m *state.EventPoll) error {
	var live []*state.PollTarget
	for _, t := range m.Target {
		if !fired(t) {
			live = append(live, t)
			continue
		}
		if err := w.addFired(t); err != nil {
			return err
		}
	}
	p := w.task.Plan()
	for _, t := range live {
		if err := w.add(p, t, t.Events); err != nil {
			return err
		}
	}
	return p.Run()
}

// fired: a one-shot registration has reported and waits to be armed again.
func fired(t *state.PollTarget) bool {
	return t.Events&unix.EPOLLONESHOT != 0 && t.Events&^uint32(pollFlagBits) == 0
}

// addFired adds a registration that reports nothing until it is armed again. No
// call makes one: EPOLL_CTL_ADD always waits for errors. It is added armed for
// everything and made to report. A file that is ready for nothing now stays
// armed for errors alone, which is the difference that remains.
func (w *watcher) addFired(t *state.PollTarget) error {
	p := w.task.Plan()
	if err := w.add(p, t, t.Events|anyEvent); err != nil {
		return err
	}
	events, _ := p.Out(12)
	took := p.Call(tracer.Syscall(unix.SYS_EPOLL_WAIT, uint64(w.fd), events, 1, 0))
	if err := p.Run(); err != nil {
		return err
	}
	if n, _ := p.Result(took); n == 1 {
		return nil
	}
	p = w.task.Plan()
	if err := w.at(p, t, func(ep, fd int) {
		p.Call(tracer.Syscall(unix.SYS_EPOLL_CTL, uint64(ep), unix.EPOLL_CTL_MOD, uint64(fd), p.Put(event(t.Events, t.Data))))
	}); err != nil {
		return err
	}
	return p.Run()
}

func (w *watcher) add(p *target.Plan, t *state.PollTarget, events uint32) error {
	return w.at(p, t, func(ep, fd int) {
		p.Call(tracer.Syscall(unix.SYS_EPOLL_CTL, uint64(ep), unix.EPOLL_CTL_ADD, uint64(fd), p.Put(event(events, t.Data))))
	})
}

// at runs fn while the target's description is at the number under which it was
// registered. Where it is no longer there, it is put there for the moment: a
// registration outlives its number as long as the description lives.
func (w *watcher) at(p *target.Plan, t *state.PollTarget, fn func(ep, fd int)) error {
	from, err := w.find(t.Description)
	if err != nil {
		return err
	}
	number := int(t.Fd)
	for _, s := range w.task.Table.Slots(t.Description) {
		if s.FD == number {
			fn(w.fd, number)
			return nil
		}
	}
	aside, ep := -1, w.fd
	used, closeOnExec := w.task.Table.At(number)
	if used {
		aside = p.DupAbove(number, w.task.Table.Aside())
	}
	if number == w.fd {
		ep = aside
	}
	p.Expect(tracer.Dup3(from, number, unix.O_CLOEXEC), int64(number))
	fn(ep, number)
	if aside < 0 {
		p.Expect(tracer.Close(number), 0)
		return nil
	}
	flag := 0
	if closeOnExec {
		flag = unix.O_CLOEXEC
	}
	p.Expect(tracer.Dup3(aside, number, flag), int64(number))
	p.Close(aside)
	return nil
}

// event is struct epoll_event, packed on x86-64.
func event(events uint32, data uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, events)
	return binary.LittleEndian.AppendUint64(b, data)
}
