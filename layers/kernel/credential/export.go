// SPDX-License-Identifier: Apache-2.0

package credential

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

// Checkpoint exports a process's limits and its threads' credentials.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process == record.Shared {
		return record.Progress{Done: true}, nil
	}
	p, err := s.env.Source.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("credential: %w", err)
	}
	n, err := s.export(ctx, p, out)
	if err != nil {
		return record.Progress{}, fmt.Errorf("credential: pid %d: %w", p.Pid, err)
	}
	s.threads.Add(uint64(n))
	return record.Progress{Done: true, Advanced: true, Entities: uint64(n)}, nil
}

func (s *Subsystem) export(ctx context.Context, p *target.Process, out record.Sink) (int, error) {
	process, err := describeProcess(p)
	if err != nil {
		return 0, err
	}
	threads, err := s.describeThreads(p)
	if err != nil {
		return 0, err
	}
	filters, err := s.describeFilters(p, threads)
	if err != nil {
		return 0, err
	}
	send := func(kind uint32, entity uint64, m proto.Message) error {
		b, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		return out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Process: p.ID, Kind: kind, Entity: entity}, Payload: b})
	}
	if err := send(KindProcess, 0, process); err != nil {
		return 0, err
	}
	for n, f := range filters {
		if err := send(KindFilter, uint64(n), f); err != nil {
			return 0, err
		}
	}
	for rest := threads; len(rest) > 0; {
		n, groups := 0, 0
		for n < len(rest) && n < threadsPerRecord && (n == 0 || groups+len(rest[n].Group)+len(rest[n].Filter) <= groupsPerRecord) {
			groups += len(rest[n].Group) + len(rest[n].Filter)
			n++
		}
		if err := send(KindThreads, uint64(rest[0].Tid), &state.ThreadCredentials{Thread: rest[:n]}); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(threads), nil
}

// aboutDumps is what the leader is asked.
var aboutDumps = &target.Question{
	Process: true,
	Calls:   func(uint64) []tracer.Call { return []tracer.Call{tracer.Prctl(unix.PR_GET_DUMPABLE)} },
}

// describeProcess reads the limits as the kernel shows them to everybody: to
// ask about another process needs CAP_SYS_RESOURCE (prlimit(2)).
func describeProcess(p *target.Process) (*state.ProcessLimits, error) {
	limits, err := p.Proc.Limits()
	if err != nil {
		return nil, err
	}
	a, err := p.AskLeader(aboutDumps)
	if err != nil {
		return nil, err
	}
	m := &state.ProcessLimits{Dumpable: uint32(a.Calls[0].Ret)}
	for _, l := range limits {
		m.Limit = append(m.Limit, &state.ResourceLimit{Soft: l.Soft, Hard: l.Hard})
	}
	return m, nil
}

// The block of a thread's answers.
const (
	askUID    = 0  // real, effective, saved
	askGID    = 12 // likewise
	askHeader = 24 // struct __user_cap_header_struct
	askCaps   = 32 // two of struct __user_cap_data_struct
	askGroups = 56 // the first fewGroups
	askSize   = askGroups + 4*fewGroups
)

// fewGroups is how many supplementary groups are asked for at once with the rest.
// A thread that has more is asked again.
const fewGroups = 32

// capVersion is _LINUX_CAPABILITY_VERSION_3 of include/uapi/linux/capability.h.
const capVersion = 0x20080522

// noID asks setfsuid(2) and setfsgid(2) for the id without changing it.
const noID = uint64(^uint32(0))

// questions are what only a thread itself can tell in terms of its own user
// namespace.
func questions(at uint64) []tracer.Call {
	return []tracer.Call{
		tracer.Syscall(unix.SYS_GETRESUID, at+askUID, at+askUID+4, at+askUID+8),
		tracer.Syscall(unix.SYS_GETRESGID, at+askGID, at+askGID+4, at+askGID+8),
		tracer.Syscall(unix.SYS_CAPGET, at+askHeader, at+askCaps),
		tracer.Prctl(unix.PR_GET_SECUREBITS),
		tracer.Syscall(unix.SYS_GETGROUPS, 0, 0),
		tracer.Syscall(unix.SYS_SETFSUID, noID),
		tracer.Syscall(unix.SYS_SETFSGID, noID),
		tracer.Syscall(unix.SYS_GETGROUPS, fewGroups, at+askGroups),
	}
}

// aboutCredentials is what a thread is asked.
var aboutCredentials = &target.Question{
	Size:    askSize,
	Prepare: func(b []byte) { binary.LittleEndian.PutUint32(b[askHeader:], capVersion) },
	Calls:   questions,
}

// describeThreads asks all threads.
func (s *Subsystem) describeThreads(p *target.Process) ([]*state.ThreadCredential, error) {
	answers, err := p.Ask(aboutCredentials)
	if err != nil {
		return nil, err
	}
	out := make([]*state.ThreadCredential, len(answers))
	for i, a := range answers {
		// The two behind return the id that is in force, which may look like an error;
		// the last fails if there are many groups.
		if err := tracer.Check(a.Calls[:5]); err != nil {
			return nil, fmt.Errorf("thread %d: %w", a.Thread.Tid, err)
		}
		out[i] = decodeAnswers(a.Memory, a.Calls)
		out[i].Tid = int32(a.Thread.NSTid)
	}
	known, err := s.ahead.of(p)
	if err != nil {
		return nil, err
	}
	err = s.env.Each(len(answers), func(i int) error {
		tid := answers[i].Thread.Tid
		if found, ok := known[tid]; ok {
			found.fill(out[i])
			return nil
		}
		return s.fromStatus(p, tid, out[i])
	})
	if err != nil {
		return nil, err
	}
	return out, groups(p, answers, out)
}

func decodeAnswers(b []byte, calls []tracer.Call) *state.ThreadCredential {
	id := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	caps := func(at int) uint64 { return uint64(id(askCaps+at)) | uint64(id(askCaps+12+at))<<32 }
	return &state.ThreadCredential{
		Uid:       &state.Ids{Real: id(askUID), Effective: id(askUID + 4), Saved: id(askUID + 8), FileSystem: uint32(calls[5].Ret)},
		Gid:       &state.Ids{Real: id(askGID), Effective: id(askGID + 4), Saved: id(askGID + 8), FileSystem: uint32(calls[6].Ret)},
		Effective: caps(0), Permitted: caps(4), Inheritable: caps(8),
		SecureBits: uint32(calls[3].Ret),
	}
}

// fromStatus adds what nobody but the kernel shows of a thread: the two sets that no
// call returns at once, and seccomp.
func (s *Subsystem) fromStatus(p *target.Process, tid int, m *state.ThreadCredential) error {
	found, err := showThread(taskOf(p, tid), s.env.Source.SeccompFilters)
	if err != nil {
		return err
	}
	found.fill(m)
	return nil
}

// taskOf is a thread's place in /proc. That of the task by which the process is looked
// at shows the same as its thread's, and others have read it.
func taskOf(p *target.Process, tid int) procfs.Task {
	if tid == p.Pid {
		return p.Proc
	}
	return p.Proc.Thread(tid)
}

func refusedThread(tid int, what, why string) error {
	return fmt.Errorf("thread %d: %s: %s", tid, what, why)
}

// groups reads the groups of those threads that have any.
func groups(p *target.Process, counted []target.Answer, out []*state.ThreadCredential) error {
	for i, a := range counted {
		th, n := a.Thread, int(a.Calls[4].Ret)
		if n <= fewGroups && !a.Calls[7].Failed() {
			out[i].Group = decodeGroups(a.Memory[askGroups:][:4*n])
			continue
		}
		sc, err := p.Traced.Scratch()
		if err != nil {
			return err
		}
		mark := sc.Mark()
		b := make([]byte, 4*n)
		at, err := sc.Put(b)
		if err != nil {
			return err
		}
		calls := []tracer.Call{tracer.Syscall(unix.SYS_GETGROUPS, uint64(n), at)}
		if err := p.Traced.Run(th, calls); err != nil {
			return err
		}
		if err := tracer.Check(calls); err != nil {
			return fmt.Errorf("thread %d: %w", th.Tid, err)
		}
		if err := p.Traced.Read(at, b); err != nil {
			return err
		}
		sc.Release(mark)
		out[i].Group = decodeGroups(b)
	}
	return nil
}

func decodeGroups(b []byte) (list []uint32) {
	for ; len(b) > 0; b = b[4:] {
		list = append(list, binary.LittleEndian.Uint32(b))
	}
	return list
}
