// SPDX-License-Identifier: Apache-2.0

package timer

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Restart keeps the records, makes the timers in StageSettle, when the threads
// that they signal exist, and arms them in StageResume.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{Done: true, Advanced: true, Entities: 1}, s.receive(in)
	}
	if step.Process == record.Shared || step.Stage != record.StageSettle && step.Stage != record.StageResume {
		return record.Progress{Done: true}, nil
	}
	t, err := s.env.Frame.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("timer: %w", err)
	}
	s.mu.Lock()
	k := s.kept[step.Process]
	s.mu.Unlock()
	if k == nil {
		return record.Progress{Done: true}, nil
	}
	if step.Stage == record.StageSettle {
		err = create(t, k.posix, s.searchIDs)
	} else {
		err = arm(t, k)
		s.timers.Add(uint64(len(k.posix) + len(k.interval)))
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("timer: process %d: %w", step.Process, err)
	}
	return record.Progress{Done: true, Advanced: true, Entities: uint64(len(k.posix))}, nil
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
	var err error
	switch in.Kind {
	case KindInterval:
		k.interval, err = decodeInterval(in.Payload)
	case KindPosix:
		err = k.addPosix(in.Payload)
	default:
		err = fmt.Errorf("%w: this version knows no such kind", errImage)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in.Header, err)
	}
	return nil
}

// maxTime is what the kernel's own times hold at most, in nanoseconds
// (KTIME_MAX of include/linux/ktime.h).
const maxTime = 1<<63 - 1

func decodeInterval(payload []byte) ([]*state.IntervalTimer, error) {
	var m state.IntervalTimers
	if err := proto.Unmarshal(payload, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errImage, err)
	}
	seen := map[uint32]bool{}
	for _, t := range m.Timer {
		if t.Which >= intervals || seen[t.Which] || t.Left > maxTime/1000 || t.Interval > maxTime/1000 {
			return nil, fmt.Errorf("%w: interval timer %v", errImage, t)
		}
		seen[t.Which] = true
	}
	return m.Timer, nil
}

func (k *saved) addPosix(payload []byte) error {
	var m state.PosixTimers
	if err := proto.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	if len(k.posix)+len(m.Timer) > maxTimers {
		return fmt.Errorf("%w: more than %d timers", errImage, maxTimers)
	}
	for _, t := range m.Timer {
		if err := valid(t); err != nil {
			return err
		}
		if n := len(k.posix); n > 0 && t.Id <= k.posix[n-1].Id {
			return fmt.Errorf("%w: timer %d follows timer %d", errImage, t.Id, k.posix[n-1].Id)
		}
		k.posix = append(k.posix, t)
	}
	return nil
}

// sigevNone is SIGEV_NONE; the others are 0 (a signal to the process), 2 (the
// same, but for libc's use), and 4 (a signal to a thread).
const sigevNone = 1

// valid checks one timer on its own.
func valid(t *state.PosixTimer) error {
	bad := func(what string) error { return fmt.Errorf("%w: timer %d: %s", errImage, t.Id, what) }
	switch {
	case t.Id < 0:
		return bad("negative id")
	case !knownClock(t.Clock):
		return bad(fmt.Sprintf("clock %d", t.Clock))
	case t.Notify != 0 && t.Notify != sigevNone && t.Notify != 2 && t.Notify != sigevThreadID:
		return bad(fmt.Sprintf("notification %d", t.Notify))
	case t.Notify != sigevNone && (t.Signal < 1 || t.Signal > 64):
		return bad(fmt.Sprintf("signal %d", t.Signal))
	case (t.Notify == sigevThreadID) != (t.Thread > 0):
		return bad(fmt.Sprintf("notification %d of thread %d", t.Notify, t.Thread))
	case t.Left > maxTime || t.Interval > maxTime:
		return bad("times out of range")
	}
	return nil
}
