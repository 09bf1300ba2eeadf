// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// errImage marks records that contradict themselves or each other.
var errImage = errors.New("the image's signals are invalid")

// Restart keeps the records; dispositions are set in StageBuild, alternate
// stacks in StageSettle, and what is pending as late as possible, with the
// masks, so that it meets the process as it will be.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{Done: true, Advanced: true, Entities: 1}, s.receive(in)
	}
	if step.Process == record.Shared || step.Stage == record.StageJoin {
		return record.Progress{Done: true}, nil
	}
	t, err := s.env.Frame.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("signal: %w", err)
	}
	s.mu.Lock()
	k := s.kept[step.Process]
	s.mu.Unlock()
	if k == nil || k.process == nil {
		return record.Progress{}, fmt.Errorf("signal: %w: nothing about process %d", errImage, step.Process)
	}
	switch step.Stage {
	case record.StageBuild:
		err = setActions(t, k.process.Action)
	case record.StageSettle:
		err = setStacks(t, k.threads)
	case record.StageResume:
		if err = t.RunLater(); err == nil {
			err = queue(t, k)
		}
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("signal: process %d: %w", step.Process, err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

func (s *Subsystem) receive(in *record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Process == record.Shared {
		return fmt.Errorf("%w: %s belongs to no process", errImage, in.Header)
	}
	k := s.kept[in.Process]
	if k == nil {
		k = &saved{}
		s.kept[in.Process] = k
	}
	switch in.Kind {
	case KindProcess:
		k.process = &state.ProcessSignals{}
		if err := proto.Unmarshal(in.Payload, k.process); err != nil {
			return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
		}
		return validProcess(k.process)
	case KindThreads:
		var m state.ThreadSignals
		if err := proto.Unmarshal(in.Payload, &m); err != nil {
			return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
		}
		for _, th := range m.Thread {
			if err := validPending(th.Pending); err != nil {
				return err
			}
		}
		k.threads = append(k.threads, m.Thread...)
		return nil
	}
	return fmt.Errorf("%w: %s: this version knows no such kind", errImage, in.Header)
}

func validProcess(p *state.ProcessSignals) error {
	for _, a := range p.Action {
		if a.Signal < 1 || a.Signal > signals {
			return fmt.Errorf("%w: signal %d", errImage, a.Signal)
		}
	}
	return validPending(p.Pending)
}

func validPending(list [][]byte) error {
	if len(list) > maxPending {
		return fmt.Errorf("%w: %d pending signals", errImage, len(list))
	}
	for _, b := range list {
		if len(b) != infoSize {
			return fmt.Errorf("%w: siginfo of %d bytes", errImage, len(b))
		}
		if n := signo(b); n < 1 || n > signals || n == uint32(unix.SIGKILL) || n == uint32(unix.SIGSTOP) {
			return fmt.Errorf("%w: pending signal %d", errImage, n)
		}
	}
	return nil
}

// pending is the set of all signals that will be, bit n-1 for signal n.
func (k *saved) pending() (set uint64) {
	add := func(list [][]byte) {
		for _, info := range list {
			set |= 1 << (signo(info) - 1)
		}
	}
	add(k.process.Pending)
	for _, th := range k.threads {
		add(th.Pending)
	}
	return set
}

// signo is si_signo.
func signo(info []byte) uint32 { return binary.LittleEndian.Uint32(info) }

// setActions sets all dispositions: the frame's own are default.
func setActions(t *target.Task, actions []*state.SignalAction) error {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	var b []byte
	for _, a := range actions {
		for _, v := range []uint64{a.Handler, a.Flags, a.Restorer, a.Mask} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	if len(b) == 0 {
		return nil
	}
	at, err := sc.Put(b)
	if err != nil {
		return err
	}
	var calls []tracer.Call
	for i, a := range actions {
		if sig := unix.Signal(a.Signal); sig != unix.SIGKILL && sig != unix.SIGSTOP {
			calls = append(calls, tracer.RtSigaction(int(a.Signal), at+uint64(actionSize*i), 0))
		}
	}
	return t.Run(calls)
}

// setStacks gives every thread its alternate stack, with its other calls.
func setStacks(t *target.Task, threads []*state.ThreadSignal) error {
	if len(threads) != len(t.Threads) {
		return fmt.Errorf("%w: %d threads, the process has %d", errImage, len(threads), len(t.Threads))
	}
	b := make([]byte, stackSize*len(threads))
	for i, th := range threads {
		s := b[stackSize*i:]
		binary.LittleEndian.PutUint64(s, th.StackBase)
		binary.LittleEndian.PutUint32(s[8:], th.StackFlags&(ssDisable|ssAutodisarm))
		binary.LittleEndian.PutUint64(s[16:], th.StackSize)
	}
	at, err := t.PutLater(b)
	if err != nil {
		return err
	}
	seen := map[int32]bool{}
	for i, th := range threads {
		host := t.Threads[int(th.Tid)]
		if host == nil || seen[th.Tid] {
			return fmt.Errorf("%w: thread %d does not exist or has a state already", errImage, th.Tid)
		}
		seen[th.Tid] = true
		t.Later(host, []tracer.Call{tracer.Sigaltstack(at+uint64(stackSize*i), 0)}, func(calls []tracer.Call) error {
			if err := tracer.Check(calls); err != nil {
				return fmt.Errorf("alternate signal stack: %w", err)
			}
			return nil
		})
	}
	return nil
}

// queue makes the pending signals pending again. Only a task itself may queue
// a siginfo that claims to come from the kernel (rt_sigqueueinfo(2)). Every
// signal is blocked meanwhile by the tracer; the masks are set last.
func queue(t *target.Task, k *saved) error {
	// From now on these must not be mistaken for the signal that ends a batch.
	if err := t.Traced.AvoidSignals(k.pending()); err != nil {
		return err
	}
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	pid := uint64(t.Traced.NSPid)
	for _, info := range k.process.Pending {
		mark := sc.Mark()
		at, err := sc.Put(info)
		if err != nil {
			return err
		}
		if err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_RT_SIGQUEUEINFO, pid, uint64(signo(info)), at)}); err != nil {
			return fmt.Errorf("queue signal %d: %w", signo(info), err)
		}
		sc.Release(mark)
	}
	for _, th := range k.threads {
		host := t.Threads[int(th.Tid)]
		if host == nil {
			return fmt.Errorf("%w: thread %d does not exist", errImage, th.Tid)
		}
		for _, info := range th.Pending {
			mark := sc.Mark()
			at, err := sc.Put(info)
			if err != nil {
				return err
			}
			calls := []tracer.Call{tracer.Syscall(unix.SYS_RT_TGSIGQUEUEINFO, pid, uint64(th.Tid), uint64(signo(info)), at)}
			if err := t.Traced.Run(host, calls); err != nil {
				return err
			}
			if err := tracer.Check(calls); err != nil {
				return fmt.Errorf("queue signal %d for thread %d: %w", signo(info), th.Tid, err)
			}
			sc.Release(mark)
		}
		if err := host.SetSignalMask(th.Blocked); err != nil {
			return err
		}
	}
	return nil
}
