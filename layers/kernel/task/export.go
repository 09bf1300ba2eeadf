// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Checkpoint exports a process and its threads.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process == record.Shared {
		return record.Progress{Done: true}, nil
	}
	p := s.env.Source.Process(step.Process)
	if p == nil || p.Traced == nil {
		return record.Progress{}, fmt.Errorf("task: process %d: %w", step.Process, target.ErrNotStopped)
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
	if err := exportSettings(ctx, p, out); err != nil {
		return record.Progress{}, fmt.Errorf("task: pid %d: %w", p.Pid, err)
	}
	s.threads.Add(uint64(len(threads)))
	return record.Progress{Done: true, Advanced: true, Entities: uint64(len(threads))}, nil
}

func push(ctx context.Context, out record.Sink, id record.ProcessID, process *state.Process, threads []*state.Thread) error {
	send := func(kind uint32, entity uint64, m proto.Message) error {
		b, err := proto.Marshal(m)
		if err != nil {
			return fmt.Errorf("task: %w", err)
		}
		return out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Process: id, Kind: kind, Entity: entity}, Payload: b})
	}
	if err := send(KindProcess, 0, process); err != nil {
		return err
	}
	for len(threads) > 0 {
		n := min(len(threads), threadsPerRecord)
		if err := send(KindThreads, uint64(threads[0].Tid), &state.Threads{Thread: threads[:n]}); err != nil {
			return err
		}
		threads = threads[n:]
	}
	return nil
}

// describe reads what belongs to the process as a whole.
func describe(p *target.Process) (*state.Process, error) {
	st, err := p.Proc.Status()
	if err != nil {
		return nil, err
	}
	last := func(list []int) int32 {
		if len(list) == 0 {
			return 0
		}
		return int32(list[len(list)-1])
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
	if m.CoredumpFilter, err = p.Proc.CoredumpFilter(); err != nil {
		return nil, err
	}
	return m, prctls(p, m)
}

// prctls asks the process itself for what nobody else is told.
func prctls(p *target.Process, m *state.Process) error {
	sc, err := p.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	at, err := sc.Put(make([]byte, 16))
	if err != nil {
		return err
	}
	calls := []tracer.Call{tracer.Prctl(unix.PR_GET_PDEATHSIG, at), tracer.Prctl(unix.PR_GET_CHILD_SUBREAPER, at+8)}
	if err := p.Traced.Run(p.Traced.Leader(), calls); err != nil {
		return err
	}
	if err := tracer.Check(calls); err != nil {
		return err
	}
	var b [16]byte
	if err := p.Traced.Read(at, b[:]); err != nil {
		return err
	}
	m.ParentDeathSignal = int32(b[0])
	m.ChildSubreaper = b[8] != 0
	return nil
}

// describeThreads reads every thread, the leader first. What only the thread
// itself can tell is asked for in one batch of each, all at the same time.
func describeThreads(p *target.Process) ([]*state.Thread, error) {
	threads := p.Traced.Threads()
	out := make([]*state.Thread, len(threads))
	err := p.Traced.Do(func() error {
		for i, th := range threads {
			var err error
			if out[i], err = describeThread(p, th); err != nil {
				return fmt.Errorf("thread %d: %w", th.Tid, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, askThreads(p, threads, out)
}

func describeThread(p *target.Process, th *tracer.Thread) (*state.Thread, error) {
	if th.Stopped != 0 {
		return nil, errors.New("it is stopped by job control since the pre-flight: continue it (SIGCONT)")
	}
	m := &state.Thread{Tid: int32(th.NSTid)}
	proc := p.Proc.Thread(th.Tid)
	comm, err := proc.Comm()
	if err != nil {
		return nil, err
	}
	m.Comm = []byte(comm)
	if m.RobustHead, m.RobustSize, err = th.RobustList(); err != nil {
		return nil, err
	}
	rseq, err := th.Rseq()
	if err != nil {
		return nil, err
	}
	m.RseqAddress, m.RseqSize, m.RseqSignature, m.RseqFlags = rseq.Addr, rseq.Size, rseq.Signature, rseq.Flags
	attr, err := unix.SchedGetAttr(th.Tid, 0)
	if err != nil {
		return nil, fmt.Errorf("sched_getattr: %w", err)
	}
	if !knownPolicy(attr.Policy) {
		return nil, errors.New(policyRefusal(attr.Policy))
	}
	m.Policy, m.Nice, m.Priority = attr.Policy, attr.Nice, attr.Priority
	m.ResetOnFork = attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0
	return m, nil
}

// askThreads fills what needs a system call by the thread itself.
func askThreads(p *target.Process, threads []*tracer.Thread, out []*state.Thread) error {
	sc, err := p.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	const words = 8
	at, err := sc.Put(make([]byte, words*len(threads)))
	if err != nil {
		return err
	}
	batches := make([]tracer.Batch, len(threads))
	for i, th := range threads {
		batches[i] = tracer.Batch{Thread: th, Calls: []tracer.Call{
			tracer.Prctl(unix.PR_GET_TID_ADDRESS, at+uint64(words*i)),
			tracer.Prctl(unix.PR_GET_TIMERSLACK),
		}}
	}
	if err := p.Traced.RunEach(batches); err != nil {
		return err
	}
	b := make([]byte, words*len(threads))
	if err := p.Traced.Read(at, b); err != nil {
		return err
	}
	for i := range threads {
		if err := tracer.Check(batches[i].Calls); err != nil {
			return fmt.Errorf("thread %d: %w", threads[i].Tid, err)
		}
		out[i].ClearChildTid = leUint64(b[words*i:])
		out[i].TimerSlack = uint64(batches[i].Calls[1].Ret)
	}
	return nil
}

// Preflight names what this version cannot carry, while the tasks run.
func (s *Subsystem) Preflight(context.Context) ([]record.Finding, error) {
	pids, err := s.env.Source.Pids()
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	found := func(pid int, what, why, remedy string) {
		out = append(out, record.Finding{Pid: pid, FD: -1, Subsystem: Name, What: what, Why: why, Remedy: remedy})
	}
	for _, pid := range pids {
		st, err := procfs.Host().Process(pid).Status()
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch {
		case pid != s.env.Source.Init:
			found(pid, "process "+st.Name, "containers of several processes are not carried by this version", "")
		case st.State == 'Z':
			found(pid, "process "+st.Name, "its leader has exited", "")
		case st.TracerPid != 0:
			found(pid, "process "+st.Name, fmt.Sprintf("process %d traces it", st.TracerPid), "detach the debugger")
		case st.State == 'T':
			found(pid, "process "+st.Name, "it is stopped by job control", "continue it (SIGCONT)")
		}
		if what := unknownPersonality(pid); what != "" {
			found(pid, "process "+st.Name, what, "")
		}
		if what := unknownPolicy(pid); what != "" {
			found(pid, "process "+st.Name, what, "give it another policy: chrt(1)")
		}
		if n := len(st.NSpid); pid == s.env.Source.Init && (n < 2 || st.NSpid[n-1] != 1) {
			found(pid, "process "+st.Name, "the container has no pid namespace of its own", "run it without --pid=host")
		}
	}
	return out, nil
}

// unknownPersonality says which bits of personality(2) would be lost.
func unknownPersonality(pid int) string {
	bits, err := procfs.Host().Process(pid).Personality()
	if err != nil || bits&^personalities == 0 {
		return ""
	}
	return fmt.Sprintf("its personality(2) has bits %#x, which weaken the protection of the address space and are not given to an image", bits&^personalities)
}
