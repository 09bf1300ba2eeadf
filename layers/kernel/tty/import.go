// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const accessMode = unix.O_ACCMODE

// Restart imports: the terminals exist since the processes do, so StageBuild
// gives them their state and opens their ends; StageResume hangs up those whose
// master is gone.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Process != record.Shared:
	case step.Stage == record.StageBuild:
		err = s.build()
	case step.Stage == record.StageResume:
		err = s.hangUp()
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("tty: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// receive keeps a record.
func (s *Subsystem) receive(r *record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Process != record.Shared {
		return fmt.Errorf("%s: terminals belong to no process", r.Header)
	}
	switch r.Kind {
	case KindTerminal:
		m, err := decodeTerminal(r)
		if err == nil && s.terminals[int(r.Entity)-1] != nil {
			err = errors.New("the terminal exists already")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.Header, err)
		}
		s.terminals[int(r.Entity)-1] = m
	case KindEnd:
		m, err := decodeEnd(r)
		if err == nil && s.ends[r.Entity] != nil {
			err = errors.New("the description exists already")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.Header, err)
		}
		s.ends[r.Entity] = m
	default:
		return fmt.Errorf("%s: kind %d is not known", r.Header, r.Kind)
	}
	s.entities.Add(1)
	return nil
}

// build gives the terminals their modes, opens their ends, and then sets what
// would get into the way of that.
func (s *Subsystem) build() error {
	first := s.env.Frame.Task(target.FirstTask)
	if first == nil || first.Traced == nil {
		return target.ErrNotStopped
	}
	indices := slices.Sorted(maps.Keys(s.terminals))
	for _, i := range indices {
		if err := s.prepare(first, i); err != nil {
			return fmt.Errorf("pts/%d: %w", i, err)
		}
	}
	for _, desc := range slices.Sorted(maps.Keys(s.ends)) {
		if err := s.openEnd(first, desc); err != nil {
			return fmt.Errorf("pts/%d: description %d: %w", s.ends[desc].Index, desc, err)
		}
	}
	for _, i := range indices {
		if err := s.finish(first, i); err != nil {
			return fmt.Errorf("pts/%d: %w", i, err)
		}
	}
	return nil
}

// made finds a terminal that the tree has announced.
func (s *Subsystem) made(index int) (*target.MadeTerminal, error) {
	m := s.env.Frame.Terminal(index)
	if m == nil {
		return nil, errors.New("the image's tree has no such terminal")
	}
	return m, nil
}

// prepare sets modes and owner.
func (s *Subsystem) prepare(first *target.Task, index int) error {
	m, err := s.made(index)
	if err != nil {
		return err
	}
	if m.Gone {
		return errors.New("a terminal that is hung up has no state")
	}
	msg := s.terminals[index]
	fd := m.Master
	if m.Console {
		if fd = first.Stdio[0]; fd < 0 {
			return target.ErrNoConsole
		}
	}
	p := first.Plan()
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TCSETS2, p.Put(encodeModes(msg))))
	if !m.Console {
		chown(p, s.env.Frame.Allowed.AnyUser(), target.SlavePath(m.Index), msg)
	}
	return p.Run()
}

// chown gives the slave's inode its owner where the live spec's user could do
// so.
func chown(p *target.Plan, any bool, path string, msg *state.Terminal) {
	cwd := int64(unix.AT_FDCWD)
	at := p.PutString(path)
	if any {
		p.Quiet(tracer.Syscall(unix.SYS_FCHOWNAT, uint64(cwd), at, uint64(msg.Uid), uint64(msg.Gid), unix.AT_SYMLINK_NOFOLLOW))
	}
	p.NarrowFiles()
	p.Quiet(tracer.Syscall(unix.SYS_FCHMODAT, uint64(cwd), at, uint64(msg.Mode)))
	p.WidenFiles()
}

// encodeModes makes a struct termios2.
func encodeModes(m *state.Terminal) (b []byte) {
	for _, v := range []uint32{m.InputModes, m.OutputModes, m.ControlModes, m.LocalModes} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(b, disciplineTTY)
	b = append(b, m.ControlCharacters...)
	b = binary.LittleEndian.AppendUint32(b, m.InputSpeed)
	return binary.LittleEndian.AppendUint32(b, m.OutputSpeed)
}

// finish sets what a terminal is like when all its ends are open. The frame's
// own descriptor of the master is closed: the image's processes have theirs.
func (s *Subsystem) finish(first *target.Task, index int) error {
	m, err := s.made(index)
	if err == nil {
		err = fill(first, m, s.terminals[index])
	}
	if err != nil || m.Console {
		return err
	}
	msg, p := s.terminals[index], first.Plan()
	one := p.Put([]byte{1, 0, 0, 0})
	if msg.SlaveClosed || msg.Exclusive {
		slave := p.Open(tracer.Syscall(unix.SYS_IOCTL, uint64(m.Master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
		if msg.Exclusive {
			p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(slave), unix.TIOCEXCL))
		}
		p.Close(slave)
	}
	if msg.Packet {
		p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(m.Master), unix.TIOCPKT, one))
	}
	if msg.Locked {
		p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(m.Master), unix.TIOCSPTLCK, one))
	}
	p.Close(m.Master)
	m.Master = -1
	return p.Run()
}

// hangUp closes the masters that nobody has in the image. The kernel tells the
// sessions and processes on them, as it does whenever a client goes away.
func (s *Subsystem) hangUp() error {
	first := s.env.Frame.Task(target.FirstTask)
	p := first.Plan()
	for _, m := range s.env.Frame.Terminals() {
		if m.Master >= 0 {
			p.Close(m.Master)
			m.Master = -1
		}
	}
	return p.Run()
}
