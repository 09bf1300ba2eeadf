// SPDX-License-Identifier: Apache-2.0

package timer

import (
	"context"
	"encoding/binary"
	"fmt"
	"sort"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Checkpoint exports a process's timers.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process == record.Shared {
		return record.Progress{Done: true}, nil
	}
	p, err := s.env.Source.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("timer: %w", err)
	}
	n, err := export(ctx, p, out)
	if err != nil {
		return record.Progress{}, fmt.Errorf("timer: pid %d: %w", p.Pid, err)
	}
	s.timers.Add(uint64(n))
	return record.Progress{Done: true, Advanced: true, Entities: uint64(n)}, nil
}

func export(ctx context.Context, p *target.Process, out record.Sink) (int, error) {
	interval, err := intervalTimers(p)
	if err != nil {
		return 0, err
	}
	posix, err := posixTimers(p)
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
	if err := send(KindInterval, 0, &state.IntervalTimers{Timer: interval}); err != nil {
		return 0, err
	}
	for rest := posix; len(rest) > 0; {
		n := min(len(rest), timersPerRecord)
		if err := send(KindPosix, uint64(rest[0].Id), &state.PosixTimers{Timer: rest[:n]}); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(interval) + len(posix), nil
}

// intervals are the kinds of setitimer(2): ITIMER_REAL, _VIRTUAL, _PROF.
const intervals = 3

// specSize is the size of struct itimerspec and of the kernel's struct
// itimerval on x86-64: interval and value, of two 64-bit words each.
const specSize = 32

// intervalTimers asks the process for its timers of setitimer(2).
func intervalTimers(p *target.Process) ([]*state.IntervalTimer, error) {
	b, err := ask(p, intervals, func(i int, at uint64) tracer.Call {
		return tracer.Syscall(unix.SYS_GETITIMER, uint64(i), at)
	})
	if err != nil {
		return nil, fmt.Errorf("getitimer: %w", err)
	}
	var out []*state.IntervalTimer
	for i := range intervals {
		interval, left := decodeSpec(b[specSize*i:], time.Microsecond)
		if left > 0 || interval > 0 {
			out = append(out, &state.IntervalTimer{Which: uint32(i), Left: left, Interval: interval})
		}
	}
	return out, nil
}

// ask makes n calls that fill a struct of specSize each, in batches.
func ask(p *target.Process, n int, call func(i int, at uint64) tracer.Call) ([]byte, error) {
	sc, err := p.Traced.Scratch()
	if err != nil {
		return nil, err
	}
	defer sc.Release(sc.Mark())
	out := make([]byte, specSize*n)
	at, err := sc.Put(make([]byte, specSize*min(n, timersPerBatch)))
	if err != nil {
		return nil, err
	}
	for from := 0; from < n; from += timersPerBatch {
		calls := make([]tracer.Call, min(n-from, timersPerBatch))
		for i := range calls {
			calls[i] = call(from+i, at+uint64(specSize*i))
		}
		if err := p.Traced.Run(p.Traced.Leader(), calls); err != nil {
			return nil, err
		}
		if err := tracer.Check(calls); err != nil {
			return nil, err
		}
		if err := p.Traced.Read(at, out[specSize*from:][:specSize*len(calls)]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// decodeSpec reads an itimerspec (fraction: time.Nanosecond) or an itimerval
// (time.Microsecond) in units of its fraction.
func decodeSpec(b []byte, fraction time.Duration) (interval, left uint64) {
	perSecond := uint64(time.Second / fraction)
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	return word(0)*perSecond + word(1), word(2)*perSecond + word(3)
}

// posixTimers lists the timers of timer_create(2) by their ids.
func posixTimers(p *target.Process) ([]*state.PosixTimer, error) {
	list, err := p.Proc.Timers()
	if err != nil {
		return nil, fmt.Errorf("list the timers (the kernel needs CONFIG_CHECKPOINT_RESTORE): %w", err)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	threads := p.Traced.Threads()
	if r := refuse(list, len(threads)); len(r) > 0 {
		return nil, &r[0]
	}
	b, err := ask(p, len(list), func(i int, at uint64) tracer.Call {
		return tracer.Syscall(unix.SYS_TIMER_GETTIME, uint64(list[i].ID), at)
	})
	if err != nil {
		return nil, fmt.Errorf("timer_gettime: %w", err)
	}
	pending, err := pendingTimers(threads)
	if err != nil {
		return nil, err
	}
	inside := map[int]int{}
	for _, th := range threads {
		inside[th.Tid] = th.NSTid
	}
	out := make([]*state.PosixTimer, len(list))
	for i, t := range list {
		out[i] = describe(&t, inside[t.Target])
		out[i].Interval, out[i].Left = decodeSpec(b[specSize*i:], time.Nanosecond)
		out[i].Pending = pending[t.ID]
	}
	return out, nil
}

// sigevThreadID is SIGEV_THREAD_ID of include/uapi/asm-generic/siginfo.h.
const sigevThreadID = 4

// describe turns an entry of /proc/PID/timers into what timer_create takes;
// thread is the target's id in its pid namespace, 0 if it is gone.
func describe(t *procfs.Timer, thread int) *state.PosixTimer {
	m := &state.PosixTimer{Id: int32(t.ID), Clock: int32(t.ClockID), Notify: int32(t.Notify), Signal: int32(t.Signal), Value: t.Value}
	switch {
	case t.ByThread && thread == 0:
		// Its signals go nowhere, and it cannot be made for a thread that is
		// not there.
		m.Notify = int32(procfs.NotifyNone)
	case t.ByThread:
		m.Notify |= sigevThreadID
		m.Thread = int32(thread)
	}
	return m
}

// siTimer is SI_TIMER of include/uapi/asm-generic/siginfo.h.
const siTimer = -2

// pendingTimers are the ids of timers whose signal is pending.
func pendingTimers(threads []*tracer.Thread) (map[int]bool, error) {
	out := map[int]bool{}
	add := func(list []tracer.Siginfo, err error) error {
		for i := range list {
			if list[i].Code() == siTimer {
				out[list[i].Pid()] = true // si_timerid is where si_pid is
			}
		}
		return err
	}
	if len(threads) == 0 {
		return nil, tracer.ErrExited
	}
	if err := add(threads[0].PeekSiginfo(true)); err != nil {
		return nil, err
	}
	for _, th := range threads {
		if err := add(th.PeekSiginfo(false)); err != nil {
			return nil, err
		}
	}
	return out, nil
}
