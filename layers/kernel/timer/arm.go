// SPDX-License-Identifier: Apache-2.0

package timer

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// arm starts everything that was running.
func arm(t *target.Task, k *saved) error {
	// From now on their signals may come at any time.
	if err := t.Traced.AvoidSignals(k.signals()); err != nil {
		return err
	}
	var specs []spec
	now := map[int32]int64{}
	for _, m := range k.posix {
		if m.Pending && m.Interval > 0 && m.Clock >= 0 && now[m.Clock] == 0 {
			var err error
			if now[m.Clock], err = readClock(t, m.Clock); err != nil {
				return err
			}
		}
		if s, ok := posixSpec(m, now[m.Clock]); ok {
			specs = append(specs, s)
		}
	}
	for _, m := range k.interval {
		specs = append(specs, intervalSpec(m))
	}
	for len(specs) > 0 {
		n := min(len(specs), timersPerBatch)
		if err := set(t, specs[:n]); err != nil {
			return err
		}
		specs = specs[n:]
	}
	return nil
}

// signals is the set that the timers send, bit n-1 for signal n.
func (k *saved) signals() (mask uint64) {
	for _, m := range k.posix {
		if m.Notify != sigevNone {
			mask |= 1 << (m.Signal - 1)
		}
	}
	for _, m := range k.interval {
		mask |= 1 << ([intervals]unix.Signal{unix.SIGALRM, unix.SIGVTALRM, unix.SIGPROF}[m.Which] - 1)
	}
	return mask
}

// spec is one timer to be set.
type spec struct {
	what           string
	posix          bool
	id             uint64
	flags          uint64
	interval, left uint64
	fraction       time.Duration
}

// posixSpec tells how to start a timer, if at all, when its clock shows now.
//
// One whose signal is pending has to expire again, so that the kernel's own
// entry in the queue is there, by which a timer counts overruns and starts its
// next interval. A periodic one is set to when its last interval began: it
// expires at once and keeps its phase.
func posixSpec(m *state.PosixTimer, now int64) (spec, bool) {
	s := spec{
		what: fmt.Sprintf("timer %d", m.Id), posix: true, id: uint64(m.Id),
		interval: m.Interval, left: m.Left, fraction: time.Nanosecond,
	}
	if !m.Pending {
		return s, m.Left > 0
	}
	s.left = 1
	if began := now + int64(m.Left) - int64(m.Interval); m.Interval > 0 && now > 0 && m.Left <= m.Interval && began > 0 {
		s.left, s.flags = uint64(began), unix.TIMER_ABSTIME
	}
	return s, true
}

// intervalSpec tells how to set a timer of setitimer(2). One that has expired
// but not begun anew begins with a whole interval.
func intervalSpec(m *state.IntervalTimer) spec {
	s := spec{what: fmt.Sprintf("interval timer %d", m.Which), id: uint64(m.Which), interval: m.Interval, left: m.Left, fraction: time.Microsecond}
	if s.left == 0 {
		s.left = s.interval
	}
	return s
}

func (s *spec) encode(b []byte) {
	perSecond := uint64(time.Second / s.fraction)
	for i, v := range []uint64{s.interval / perSecond, s.interval % perSecond, s.left / perSecond, s.left % perSecond} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
}

// set makes one batch of calls.
func set(t *target.Task, specs []spec) error {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	b := make([]byte, specSize*len(specs))
	for i := range specs {
		specs[i].encode(b[specSize*i:])
	}
	at, err := sc.Put(b)
	if err != nil {
		return err
	}
	calls := make([]tracer.Call, len(specs))
	for i, s := range specs {
		addr := at + uint64(specSize*i)
		if s.posix {
			calls[i] = tracer.Syscall(unix.SYS_TIMER_SETTIME, s.id, s.flags, addr, 0)
		} else {
			calls[i] = tracer.Syscall(unix.SYS_SETITIMER, s.id, addr, 0)
		}
	}
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return err
	}
	for i := range calls {
		if err := calls[i].Errno(); err != nil {
			return fmt.Errorf("arm %s: %w", specs[i].what, err)
		}
	}
	return nil
}

// readClock asks the task, which may be in another time namespace.
func readClock(t *target.Task, clock int32) (int64, error) {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return 0, err
	}
	defer sc.Release(sc.Mark())
	at, err := sc.Put(make([]byte, 16))
	if err != nil {
		return 0, err
	}
	if err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_CLOCK_GETTIME, uint64(clock), at)}); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	var b [16]byte
	if err := t.Traced.Read(at, b[:]); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(b[:]))*int64(time.Second) + int64(binary.LittleEndian.Uint64(b[8:])), nil
}
