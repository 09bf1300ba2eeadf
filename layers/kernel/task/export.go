// SPDX-License-Identifier: Apache-2.0

package task

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Checkpoint exports a process and its threads.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage == record.StageEarly && step.Process == record.Shared {
		return record.Progress{Done: true, Advanced: true}, s.exportEarly(ctx, out)
	}
	if step.Stage != record.StageResidual {
		return record.Progress{Done: true}, nil
	}
	if step.Process == record.Shared {
		if err := s.exportTree(ctx, out); err != nil {
			return record.Progress{}, fmt.Errorf("task: %w", err)
		}
		return record.Progress{Done: true, Advanced: true}, nil
	}
	p, err := s.env.Source.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("task: %w", err)
	}
	process, err := describe(p)
	if err != nil {
		return record.Progress{}, fmt.Errorf("task: pid %d: %w", p.Pid, err)
	}
	threads, err := describeThreads(p)
	if err != nil {
		return record.Progress{}, fmt.Errorf("task: pid %d: %w", p.Pid, err)
	}
	process.Threads = uint32(len(threads))
	if err := push(ctx, out, p.ID, process, threads); err != nil {
		return record.Progress{}, err
	}
	if err := pushGroups(ctx, p, out); err != nil {
		return record.Progress{}, fmt.Errorf("task: pid %d: %w", p.Pid, err)
	}
	if err := exportSettings(ctx, p, out); err != nil {
		return record.Progress{}, fmt.Errorf("task: pid %d: %w", p.Pid, err)
	}
	s.threads.Add(uint64(len(threads)))
	return record.Progress{Done: true, Advanced: true, Entities: uint64(len(threads))}, nil
}

func push(ctx context.Context, out record.Sink, id record.ProcessID, process *state.Process, threads []*state.Thread) error {
	if err := send(ctx, out, record.Header{Process: id, Kind: KindProcess}, process); err != nil {
		return err
	}
	for len(threads) > 0 {
		n := min(len(threads), threadsPerRecord)
		h := record.Header{Process: id, Kind: KindThreads, Entity: uint64(threads[0].Tid)}
		if err := send(ctx, out, h, &state.Threads{Thread: threads[:n]}); err != nil {
			return err
		}
		threads = threads[n:]
	}
	return nil
}

// send pushes one message.
func send(ctx context.Context, out record.Sink, h record.Header, m proto.Message) error {
	h.Subsystem = Name
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("task: %w", err)
	}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}

// describe reads what belongs to the process as a whole.
func describe(p *target.Process) (*state.Process, error) {
	st, err := p.Leader().Status()
	if err != nil {
		return nil, err
	}
	m := &state.Process{Pid: int32(p.Traced.NSPid), ProcessGroup: last(st.NSpgid), Session: last(st.NSsid)}
	if m.Personality, err = p.Proc.Personality(); err != nil {
		return nil, err
	}
	oom, err := p.Proc.OOMScoreAdj()
	if err != nil {
		return nil, err
	}
	m.OomScoreAdj = int32(oom)
	if err := describeLeader(p, m); err != nil {
		return nil, err
	}
	if m.CoredumpFilter, err = p.Proc.CoredumpFilter(); err != nil {
		return nil, err
	}
	return m, prctls(p, m)
}

// aboutProcess is what nobody is told but the process itself.
var aboutProcess = &target.Question{
	Process: true, Size: 16,
	Calls: func(at uint64) []tracer.Call {
		return []tracer.Call{tracer.Prctl(unix.PR_GET_PDEATHSIG, at), tracer.Prctl(unix.PR_GET_CHILD_SUBREAPER, at+8)}
	},
}

// describeLeader notes what is left of a leader that has ended.
func describeLeader(p *target.Process, m *state.Process) error {
	if p.Pid == p.Group {
		return nil
	}
	stat, err := p.Leader().Stat()
	if err != nil {
		return err
	}
	m.LeaderEnded, m.LeaderComm = true, []byte(stat.Comm)
	m.LeaderExitCode = uint32(stat.ExitCode) >> 8 & 0xff
	return nil
}

func prctls(p *target.Process, m *state.Process) error {
	a, err := p.AskLeader(aboutProcess)
	if err != nil {
		return err
	}
	m.ParentDeathSignal = int32(a.Memory[0])
	m.ChildSubreaper = a.Memory[8] != 0
	return nil
}

// describeThreads reads every thread, the leader first. What only the thread
// itself can tell is asked for last.
func describeThreads(p *target.Process) ([]*state.Thread, error) {
	threads := p.Traced.Threads()
	out := make([]*state.Thread, len(threads))
	err := p.Traced.Do(func() error {
		for i, th := range threads {
			var err error
			if out[i], err = describeThread(th); err != nil {
				return fmt.Errorf("thread %d: %w", th.Tid, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, askThreads(p, out)
}

func describeThread(th *tracer.Thread) (m *state.Thread, err error) {
	m = &state.Thread{Tid: int32(th.NSTid)}
	if m.RobustHead, m.RobustSize, err = th.RobustList(); err != nil {
		return nil, err
	}
	rseq, err := th.Rseq()
	if err != nil {
		return nil, err
	}
	m.RseqAddress, m.RseqSize, m.RseqSignature, m.RseqFlags = rseq.Addr, rseq.Size, rseq.Signature, rseq.Flags
	return m, describePolicy(th.Tid, m)
}

// aboutThread is what a thread is asked, beside its settings. Its name could be
// read from /proc, at the price of three system calls for each thread instead of
// a part of one.
var aboutThread = &target.Question{
	Size: 8 + commSize,
	Calls: func(at uint64) []tracer.Call {
		return []tracer.Call{
			tracer.Prctl(unix.PR_GET_TID_ADDRESS, at), tracer.Prctl(unix.PR_GET_TIMERSLACK),
			tracer.Prctl(unix.PR_GET_NAME, at+8),
		}
	},
}

// commSize is TASK_COMM_LEN of the kernel's include/linux/sched.h.
const commSize = 16

// askThreads fills what needs a system call by the thread itself.
func askThreads(p *target.Process, out []*state.Thread) error {
	answers, err := p.Ask(aboutThread)
	if err != nil {
		return err
	}
	for i, a := range answers {
		if err := tracer.Check(a.Calls); err != nil {
			return fmt.Errorf("thread %d: %w", a.Thread.Tid, err)
		}
		out[i].ClearChildTid = leUint64(a.Memory)
		name, _, _ := bytes.Cut(a.Memory[8:], []byte{0})
		out[i].Comm = bytes.Clone(name)
		out[i].TimerSlack = uint64(a.Calls[1].Ret)
	}
	return nil
}
