// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Checkpoint exports a process's signals.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process == record.Shared {
		return record.Progress{Done: true}, nil
	}
	p, err := s.env.Source.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("signal: %w", err)
	}
	n, err := export(ctx, p, out)
	if err != nil {
		return record.Progress{}, fmt.Errorf("signal: pid %d: %w", p.Pid, err)
	}
	s.threads.Add(uint64(n))
	return record.Progress{Done: true, Advanced: true, Entities: uint64(n)}, nil
}

func export(ctx context.Context, p *target.Process, out record.Sink) (int, error) {
	process := &state.ProcessSignals{}
	var err error
	if process.Action, err = actions(p); err != nil {
		return 0, err
	}
	timers, err := timerIDs(p)
	if err != nil {
		return 0, err
	}
	if process.Pending, err = pending(p.Traced.Leader(), true, timers); err != nil {
		return 0, err
	}
	threads, err := describeThreads(p, timers)
	if err != nil {
		return 0, err
	}
	if err := push(ctx, out, record.Header{Subsystem: Name, Process: p.ID, Kind: KindProcess}, process); err != nil {
		return 0, err
	}
	for rest := threads; len(rest) > 0; {
		n := min(len(rest), threadsPerRecord)
		h := record.Header{Subsystem: Name, Process: p.ID, Kind: KindThreads, Entity: uint64(rest[0].Tid)}
		if err := push(ctx, out, h, &state.ThreadSignals{Thread: rest[:n]}); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(threads), nil
}

func push(ctx context.Context, out record.Sink, h record.Header, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}

// aboutActions asks the leader for all dispositions.
var aboutActions = &target.Question{
	Process: true, Size: signals * actionSize,
	Calls: func(at uint64) []tracer.Call {
		calls := make([]tracer.Call, signals)
		for i := range calls {
			calls[i] = tracer.RtSigaction(i+1, 0, at+uint64(actionSize*i))
		}
		return calls
	},
}

func actions(p *target.Process) ([]*state.SignalAction, error) {
	a, err := p.AskLeader(aboutActions)
	if err != nil {
		return nil, err
	}
	return decodeActions(a.Memory), nil
}

// decodeActions leaves out what is default.
func decodeActions(b []byte) []*state.SignalAction {
	var out []*state.SignalAction
	word := func(i, n int) uint64 { return binary.LittleEndian.Uint64(b[actionSize*i+8*n:]) }
	for i := range len(b) / actionSize {
		a := &state.SignalAction{Signal: uint32(i + 1), Handler: word(i, 0), Flags: word(i, 1), Restorer: word(i, 2), Mask: word(i, 3)}
		if a.Handler|a.Flags|a.Mask != 0 {
			out = append(out, a)
		}
	}
	return out
}

// siTimer is SI_TIMER of include/uapi/asm-generic/siginfo.h.
const siTimer = -2

// timerIDs are the process's timers of timer_create(2).
func timerIDs(p *target.Process) (map[int]bool, error) {
	list, err := p.Proc.Timers()
	if procfs.IsGone(err) { // a kernel that does not list them
		return nil, nil
	}
	out := map[int]bool{}
	for _, t := range list {
		out[t.ID] = true
	}
	return out, err
}

// pending lists what is queued but for the signals of timers: when such a
// timer is armed again it expires at once and queues its own. SIGSTOP is not in
// the list: the subsystem task takes the process for stopped.
func pending(th *tracer.Thread, shared bool, timers map[int]bool) ([][]byte, error) {
	infos, err := th.PeekSiginfo(shared)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, 0, len(infos))
	for i := range infos {
		if infos[i].Code() == siTimer && timers[infos[i].Pid()] {
			continue // si_timerid is where si_pid is
		}
		if infos[i].Signo() == int(unix.SIGSTOP) {
			continue
		}
		out = append(out, infos[i][:])
	}
	return out, nil
}

// describeThreads reads every thread's mask, queue and alternate stack.
func describeThreads(p *target.Process, timers map[int]bool) ([]*state.ThreadSignal, error) {
	threads := p.Traced.Threads()
	out := make([]*state.ThreadSignal, len(threads))
	err := p.Traced.Do(func() error {
		for i, th := range threads {
			out[i] = &state.ThreadSignal{Tid: int32(th.NSTid)}
			var err error
			if out[i].Blocked, err = th.SignalMask(); err != nil {
				return err
			}
			if out[i].Pending, err = pending(th, false, timers); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, stacks(p, out)
}

// aboutStack is what a thread is asked: its alternate stack.
var aboutStack = &target.Question{
	Size:  stackSize,
	Calls: func(at uint64) []tracer.Call { return []tracer.Call{tracer.Sigaltstack(0, at)} },
}

// stacks fills the alternate stacks.
func stacks(p *target.Process, out []*state.ThreadSignal) error {
	answers, err := p.Ask(aboutStack)
	if err != nil {
		return err
	}
	for i, a := range answers {
		if err := tracer.Check(a.Calls); err != nil {
			return fmt.Errorf("thread %d: %w", a.Thread.Tid, err)
		}
		s := a.Memory
		out[i].StackBase = binary.LittleEndian.Uint64(s)
		// Whether the thread is on it follows from its stack pointer.
		out[i].StackFlags = binary.LittleEndian.Uint32(s[8:]) &^ ssOnStack
		out[i].StackSize = binary.LittleEndian.Uint64(s[16:])
	}
	return nil
}
