// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// errImage marks records that contradict themselves or each other.
var errImage = errors.New("the image's tasks are invalid")

// maxThreads is the kernel's largest pid (PID_MAX_LIMIT).
const maxThreads = 4 << 20

func leUint64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// Restart keeps the records, makes the threads in StageJoin and gives them
// what is theirs in StageSettle.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{Done: true, Advanced: true, Entities: 1}, s.receive(in)
	}
	if step.Process == record.Shared {
		err := s.wholeTree()
		if err == nil && step.Stage == record.StageJoin && s.apart() {
			// A thread that is made with a table of its own has a copy of the process's.
			err = s.env.Frame.Share()
		}
		return record.Progress{Done: true}, err
	}
	t, err := s.env.Frame.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("task: %w", err)
	}
	s.mu.Lock()
	k := s.kept[step.Process]
	s.mu.Unlock()
	if k == nil || k.process == nil || len(k.threads) != int(k.process.Threads) || k.settings == nil || len(k.threadSettings) != len(k.threads) {
		return record.Progress{}, fmt.Errorf("%w: process %d is not whole", errImage, step.Process)
	}
	switch step.Stage {
	case record.StageBuild:
		if err = check(t, k); err == nil {
			err = setProcess(t, k.settings)
		}
	case record.StageJoin:
		err = join(t, k)
		s.threads.Add(uint64(len(k.threads)))
	case record.StageSettle:
		err = settle(t, k)
	case record.StageResume:
		if err = t.RunLater(); err != nil {
			break
		}
		// Every change of credentials clears it (prctl(2)), so it comes late.
		if sig := k.process.ParentDeathSignal; sig > 0 {
			err = t.Run([]tracer.Call{tracer.Prctl(unix.PR_SET_PDEATHSIG, uint64(sig))})
		}
		if err == nil {
			err = denyWriteExecute(t, k.settings)
		}
		if err == nil {
			err = scheduleAll(t, k, true)
		}
		s.stopAgain(t)
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("task: process %d: %w", step.Process, err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// wholeTree: an image has one tree, all of it, also if it holds one process.
func (s *Subsystem) wholeTree() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.grown || s.early {
		return fmt.Errorf("task: %w: its tree of processes is not whole", errImage)
	}
	return nil
}

func (s *Subsystem) receive(in *record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Kind == KindTree && in.Process == record.Shared {
		return s.receiveTree(in)
	}
	if in.Kind == KindSharing && in.Process == record.Shared {
		return s.receiveSharing(in)
	}
	if in.Process == record.Shared {
		return fmt.Errorf("%w: %s belongs to no process", errImage, in.Header)
	}
	if !s.grown {
		return fmt.Errorf("%w: %s comes before the tree of processes is whole", errImage, in.Header)
	}
	k := s.kept[in.Process]
	if k == nil {
		k = &saved{}
		s.kept[in.Process] = k
	}
	switch in.Kind {
	case KindProcess:
		k.process = &state.Process{}
		if err := proto.Unmarshal(in.Payload, k.process); err != nil {
			return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
		}
		if n := k.process.Threads; n == 0 || n > maxThreads {
			return fmt.Errorf("%w: %s: %d threads", errImage, in.Header, n)
		}
		if len(k.process.LeaderComm) > 15 || k.process.LeaderExitCode > 0xff {
			return fmt.Errorf("%w: %s: a leader %q that has ended with %d", errImage, in.Header, k.process.LeaderComm, k.process.LeaderExitCode)
		}
		return nil
	case KindThreads:
		var m state.Threads
		if err := proto.Unmarshal(in.Payload, &m); err != nil {
			return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
		}
		if k.process == nil || len(k.threads)+len(m.Thread) > int(k.process.Threads) {
			return fmt.Errorf("%w: %s: more threads than announced", errImage, in.Header)
		}
		for _, th := range m.Thread {
			if th.Tid <= 0 || th.Tid > maxThreads || len(th.Comm) > 15 {
				return fmt.Errorf("%w: %s: thread %d %q", errImage, in.Header, th.Tid, th.Comm)
			}
			if err := validPolicy(th); err != nil {
				return fmt.Errorf("%s: %w", in.Header, err)
			}
		}
		k.threads = append(k.threads, m.Thread...)
		return nil
	}
	if in.Kind == KindGroups {
		return k.addGroups(in)
	}
	if in.Kind == KindSettings {
		if err := k.addSettings(in.Payload); err != nil {
			return fmt.Errorf("%s: %w", in.Header, err)
		}
		return nil
	}
	return fmt.Errorf("%w: %s: this version knows no such kind", errImage, in.Header)
}

// check compares the frame with the process it is to be.
func check(t *target.Task, k *saved) error {
	if int(k.process.Pid) != t.Traced.NSPid || !k.process.LeaderEnded && int(k.threads[0].Tid) != t.Traced.NSPid {
		return fmt.Errorf("the image's process has pid %d and the new container's is %d: both need a pid namespace of their own", k.process.Pid, t.Traced.NSPid)
	}
	seen := map[int32]bool{}
	for _, th := range k.threads {
		if seen[th.Tid] {
			return fmt.Errorf("%w: thread %d exists twice", errImage, th.Tid)
		}
		seen[th.Tid] = true
	}
	if k.process.LeaderEnded {
		if seen[k.process.Pid] {
			return fmt.Errorf("%w: thread %d has ended and has not", errImage, k.process.Pid)
		}
		delete(t.Threads, t.Traced.NSPid)
		t.EndsLeader(int(k.process.LeaderExitCode))
	}
	return nil
}

// settle gives each thread what it must set itself, with the other subsystems'
// calls, and then what the engine sets from outside.
func settle(t *target.Task, k *saved) error {
	if k.settled {
		return nil
	}
	names := make([]byte, 16*(len(k.threads)+1))
	for i, th := range k.threads {
		copy(names[16*i:16*i+15], th.Comm)
	}
	copy(names[16*len(k.threads):][:15], k.process.LeaderComm)
	at, err := t.PutLater(names)
	if err != nil {
		return err
	}
	for i, th := range k.threads {
		calls := own(th, at+uint64(16*i))
		if i == 0 {
			calls = append(calls, ownOfProcess(k.process)...)
		}
		t.Later(t.Threads[int(th.Tid)], calls, tracer.Check)
	}
	if th := t.Doomed(); th != nil {
		t.Later(th, []tracer.Call{tracer.Prctl(unix.PR_SET_NAME, at+uint64(16*len(k.threads)))}, tracer.Check)
	}
	k.settled = true
	return errors.Join(outside(t, k), setThreads(t, k))
}

// own are a thread's own calls; name is the address of its 16 bytes of name.
func own(th *state.Thread, name uint64) []tracer.Call {
	calls := []tracer.Call{
		tracer.Syscall(unix.SYS_SET_TID_ADDRESS, th.ClearChildTid),
		tracer.Prctl(unix.PR_SET_NAME, name),
		tracer.Prctl(unix.PR_SET_TIMERSLACK, th.TimerSlack),
	}
	if th.RobustSize != 0 {
		calls = append(calls, tracer.Syscall(unix.SYS_SET_ROBUST_LIST, th.RobustHead, th.RobustSize))
	}
	if th.RseqAddress != 0 {
		calls = append(calls, tracer.Syscall(unix.SYS_RSEQ, th.RseqAddress, uint64(th.RseqSize), uint64(th.RseqFlags), uint64(th.RseqSignature)))
	}
	return calls
}

// personalities are the bits that a container may bring along. The others
// weaken the address space's protection, which a seccomp filter may forbid.
const personalities = 0x0008 | 0x20000 | 0x40000 // PER_LINUX32, UNAME26, ADDR_NO_RANDOMIZE

func ownOfProcess(p *state.Process) []tracer.Call {
	sub := uint64(0)
	if p.ChildSubreaper {
		sub = 1
	}
	calls := []tracer.Call{tracer.Prctl(unix.PR_SET_CHILD_SUBREAPER, sub)}
	if bits := p.Personality & personalities; bits != 0 {
		calls = append(calls, tracer.Syscall(unix.SYS_PERSONALITY, uint64(bits)))
	}
	return calls
}

// outside sets what the engine can set better than the task.
func outside(t *target.Task, k *saved) error {
	if err := setNumber(t, "coredump_filter", "0x"+strconv.FormatUint(uint64(k.process.CoredumpFilter), 16)); err != nil {
		return err
	}
	// An image may offer the container to the OOM killer, not save it from it.
	now, err := t.Proc.OOMScoreAdj()
	if err != nil {
		return err
	}
	if int(k.process.OomScoreAdj) > now {
		if err := setNumber(t, "oom_score_adj", strconv.Itoa(int(k.process.OomScoreAdj))); err != nil {
			return err
		}
	}
	return scheduleAll(t, k, false)
}

// scheduleAll sets how threads are scheduled: those with a deadline when all else
// is done, since they may have little time in each period.
func scheduleAll(t *target.Task, k *saved, deadlines bool) error {
	for _, th := range k.threads {
		if (th.Policy == unix.SCHED_DEADLINE) != deadlines {
			continue
		}
		if err := schedule(t, th); err != nil {
			return fmt.Errorf("thread %d: scheduling: %w", th.Tid, err)
		}
	}
	return nil
}

func setNumber(t *target.Task, file, text string) error {
	if err := os.WriteFile(t.Proc.Path(file), []byte(text), 0); err != nil {
		return fmt.Errorf("set %s: %w", file, err)
	}
	return nil
}

// capSysNice is CAP_SYS_NICE of include/uapi/linux/capability.h.
const capSysNice = 23
