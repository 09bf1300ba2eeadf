// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/arch/amd64"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// errImage marks records that contradict themselves or each other.
var errImage = errors.New("the image's registers are invalid")

// maxThreads bounds the threads of one process that an image may hold; it is
// the kernel's largest pid (PID_MAX_LIMIT).
const maxThreads = 4 << 20

// Restart keeps the records and sets the registers in StageResume.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{Done: true, Advanced: true, Entities: 1}, s.receive(in)
	}
	if step.Stage != record.StageResume || step.Process == record.Shared {
		return record.Progress{Done: true}, nil
	}
	t, err := s.env.Frame.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("cpu: %w", err)
	}
	s.mu.Lock()
	kept := s.kept[step.Process]
	delete(s.kept, step.Process)
	s.mu.Unlock()
	if err := set(t, kept); err != nil {
		return record.Progress{}, fmt.Errorf("cpu: process %d: %w", step.Process, err)
	}
	return record.Progress{Done: true, Advanced: len(kept) > 0}, nil
}

// set gives every thread its registers; none may be left with the engine's.
func set(t *target.Task, kept map[int]*saved) error {
	if len(kept) != len(t.Threads) {
		return fmt.Errorf("%w: registers of %d threads for %d threads", errImage, len(kept), len(t.Threads))
	}
	if err := endSleeps(t, kept); err != nil {
		return err
	}
	return t.Traced.Do(func() error {
		for tid, k := range kept {
			th := t.Threads[tid]
			if th == nil {
				return fmt.Errorf("%w: registers of thread %d, which does not exist", errImage, tid)
			}
			if err := th.SetXState(k.xsave); err != nil {
				return err
			}
			if err := th.SetRegisters(k.registers); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Subsystem) receive(in *record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch in.Kind {
	case KindLayout:
		return s.receiveLayout(in.Payload)
	case KindThread:
		var m state.ThreadCPU
		if err := proto.Unmarshal(in.Payload, &m); err != nil {
			return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
		}
		return s.receiveThread(in, in.Entity, &m)
	case KindThreads:
		var m state.ThreadsCPU
		if err := proto.Unmarshal(in.Payload, &m); err != nil {
			return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
		}
		for _, th := range m.Thread {
			if err := s.receiveThread(in, uint64(max(th.Tid, 0)), th); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%w: %s: this version knows no such kind", errImage, in.Header)
}

func (s *Subsystem) receiveLayout(payload []byte) error {
	var m state.XSaveLayout
	if err := proto.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	l := &amd64.XLayout{Features: m.Features}
	for _, c := range m.Component {
		l.Components = append(l.Components, amd64.XComponent{Bit: int(c.Bit), Offset: c.Offset, Size: c.Size})
	}
	if err := l.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	s.layout = l
	return nil
}

// receiveThread keeps what a record says of one thread.
func (s *Subsystem) receiveThread(in *record.Record, tid uint64, m *state.ThreadCPU) error {
	if s.layout == nil {
		return fmt.Errorf("%w: %s comes before the layout", errImage, in.Header)
	}
	if tid == 0 || tid > maxThreads || in.Process == record.Shared {
		return fmt.Errorf("%w: %s: no such thread can be as %d", errImage, in.Header, tid)
	}
	k := &saved{}
	if err := k.registers.UnmarshalBinary(m.Registers); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
	}
	if k.registers.Is32Bit() {
		return fmt.Errorf("%w: %s: 32-bit tasks are not carried", errImage, in.Header)
	}
	if k.sleep, k.stopped = m.Sleep, m.Stopped; k.sleep < 0 || k.sleep > 0 && !sleeps(k.registers.Rax) {
		return fmt.Errorf("%w: %s: a sleep of %d ns in system call %d", errImage, in.Header, k.sleep, k.registers.Rax)
	}
	// Whatever restart was needed has been worked into the registers.
	k.registers.OrigRax = amd64.NoSyscall
	host := tracer.HostXSave()
	var err error
	if k.xsave, err = amd64.Repack(m.Xsave, s.layout, &host); err != nil {
		return fmt.Errorf("%s: %w", in.Header, err)
	}
	threads := s.kept[in.Process]
	if threads == nil {
		threads = map[int]*saved{}
		s.kept[in.Process] = threads
	}
	threads[int(tid)] = k
	return nil
}
