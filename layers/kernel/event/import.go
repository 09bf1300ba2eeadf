// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// opensPerPlan is how many descriptions one batch makes.
const opensPerPlan = 512

// Restart imports: descriptions are made in the stage build, registrations in
// join, when every descriptor has its number, and timers start in settle.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Process == record.Shared && step.Stage == record.StageBuild:
		err = s.build()
	case step.Process == record.Shared:
	case step.Stage == record.StageJoin:
		if err = errors.Join(s.register(step.Process), s.watch(step.Process)); err == nil {
			err = s.startTimers(step.Process, true)
		}
	case step.Stage == record.StageSettle:
		err = s.startTimers(step.Process, false)
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("event: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

func (s *Subsystem) receive(r *record.Record) error {
	msg, err := decode(r)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in[r.Entity] = msg
	s.entities.Add(1)
	return nil
}

// mine are the descriptions that were made in a process, in order.
func (s *Subsystem) mine(id record.ProcessID) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []uint64
	for _, desc := range slices.Sorted(maps.Keys(s.in)) {
		if s.built[desc] == id {
			out = append(out, desc)
		}
	}
	return out
}

// claim notes which descriptions the process makes: those that it is the first
// to have.
func (s *Subsystem) claim(t *target.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for desc := range s.in {
		if s.built[desc] == 0 && len(t.Table.Slots(desc)) > 0 {
			s.built[desc] = t.ID
		}
	}
}

// build makes all descriptions.
func (s *Subsystem) build() (err error) {
	standIns, err := s.standIn()
	defer func() { err = errors.Join(err, standIns.end()) }()
	if err != nil {
		return err
	}
	for _, t := range s.env.Frame.Tasks() {
		if t.Traced == nil {
			return fmt.Errorf("process %d: %w", t.ID, target.ErrNotStopped)
		}
		s.claim(t)
		if err := s.mayListen(t); err != nil {
			return fmt.Errorf("process %d: %w", t.ID, err)
		}
		if err := s.buildIn(t, standIns); err != nil {
			return fmt.Errorf("process %d: %w", t.ID, err)
		}
	}
	return nil
}

// buildIn makes and places the descriptions that a process is to make.
func (s *Subsystem) buildIn(t *target.Task, standIns standIns) error {
	for part := range slices.Chunk(s.mine(t.ID), opensPerPlan) {
		p := t.Plan()
		for _, desc := range part {
			fd := open(p, s.in[desc], standIns)
			if err := p.Place(desc, fd); err != nil {
				return err
			}
		}
		if err := p.Run(); err != nil {
			return err
		}
	}
	return nil
}

// open appends the calls that make a description without what it watches and
// without a running timer.
func open(p *target.Plan, msg proto.Message, standIns standIns) int {
	var fd int
	var flags uint32
	switch m := msg.(type) {
	case *state.EventCounter:
		flags = m.Flags
		how := uint64(unix.EFD_NONBLOCK)
		if m.Semaphore {
			how |= unix.EFD_SEMAPHORE
		}
		fd = p.Open(tracer.Syscall(unix.SYS_EVENTFD2, 0, how))
		if m.Count > 0 {
			// eventfd2's own argument has 32 bits.
			p.Expect(tracer.Syscall(unix.SYS_WRITE, uint64(fd), p.Put(binary.LittleEndian.AppendUint64(nil, m.Count)), 8), 8)
		}
	case *state.EventTimer:
		flags = m.Flags
		fd = p.Open(tracer.Syscall(unix.SYS_TIMERFD_CREATE, uint64(m.Clock), 0))
	case *state.EventSignal:
		flags = m.Flags
		mask := p.Put(binary.LittleEndian.AppendUint64(nil, m.Mask))
		fd = p.Open(tracer.Syscall(unix.SYS_SIGNALFD4, uint64(1<<64-1), mask, 8, 0))
	case *state.EventPoll:
		flags = m.Flags
		fd = p.Open(tracer.Syscall(unix.SYS_EPOLL_CREATE1, 0))
	case *state.EventFiles:
		flags = m.Flags
		fd = p.Open(tracer.Syscall(unix.SYS_INOTIFY_INIT1, 0))
	case *state.EventGroup:
		flags = m.Flags
		fd = openGroup(p, m)
	case *state.EventProcess:
		flags = m.Flags
		fd = p.Open(tracer.Syscall(unix.SYS_PIDFD_OPEN, uint64(standIns.pid(m)), uint64(m.Flags&threadFlag)))
	}
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(flags&target.StatusFlags)))
	return fd
}
