// SPDX-License-Identifier: Apache-2.0

package timer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

const (
	// prRestoreIDs is PR_TIMER_CREATE_RESTORE_IDS (Linux 6.15): timer_create
	// then takes the id that it is to give from where it puts the id.
	prRestoreIDs = 77
	// sigeventSize is the size of struct sigevent: value, signal, notification,
	// thread id, padding.
	sigeventSize = 64
	// idSize is the room for a timer's id.
	idSize = 8
	// maxSearch bounds the search for ids on older kernels: about a second.
	maxSearch = 1 << 20
)

// create makes the timers, not armed, with their ids. The frame has none.
func create(t *target.Task, timers []*state.PosixTimer, search bool) error {
	for _, m := range timers {
		if m.Notify == sigevThreadID && t.Threads[int(m.Thread)] == nil {
			return fmt.Errorf("%w: timer %d signals thread %d, which does not exist", errImage, m.Id, m.Thread)
		}
	}
	if len(timers) == 0 {
		return nil
	}
	if !search {
		err := t.Run([]tracer.Call{tracer.Prctl(prRestoreIDs, 1)})
		search = errors.Is(err, unix.EINVAL)
		if err != nil && !search {
			return err
		}
	}
	if search {
		return createBySearch(t, timers)
	}
	for rest := timers; len(rest) > 0; {
		n := min(len(rest), timersPerBatch)
		if err := createSome(t, rest[:n], nil); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return t.Run([]tracer.Call{tracer.Prctl(prRestoreIDs, 0)})
}

// createSome makes timers and checks their ids. Of those with an index in
// spare only the id is wanted: they are deleted at once.
func createSome(t *target.Task, timers []*state.PosixTimer, spare map[int]bool) error {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	const each = sigeventSize + idSize
	b := make([]byte, each*len(timers))
	for i, m := range timers {
		encodeSigevent(b[each*i:], m)
		binary.LittleEndian.PutUint32(b[each*i+sigeventSize:], uint32(m.Id))
	}
	at, err := sc.Put(b)
	if err != nil {
		return err
	}
	var calls []tracer.Call
	var about []int
	for i, m := range timers {
		event := at + uint64(each*i)
		calls = append(calls, tracer.Syscall(unix.SYS_TIMER_CREATE, uint64(int64(m.Clock)), event, event+sigeventSize))
		about = append(about, i)
		if spare[i] {
			calls = append(calls, tracer.Syscall(unix.SYS_TIMER_DELETE, uint64(m.Id)))
			about = append(about, i)
		}
	}
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return err
	}
	for i := range calls {
		if err := calls[i].Errno(); err != nil {
			m := timers[about[i]]
			return fmt.Errorf("make timer %d on clock %d: %w", m.Id, m.Clock, err)
		}
	}
	if err := t.Traced.Read(at, b); err != nil {
		return err
	}
	for i, m := range timers {
		if got := int32(binary.LittleEndian.Uint32(b[each*i+sigeventSize:])); got != m.Id {
			return fmt.Errorf("timer %d got id %d", m.Id, got)
		}
	}
	return nil
}

// createBySearch relies on the kernel's giving each new timer the id after the
// last one's (kernel/time/posix-timers.c, posix_timer_add): timers that are not
// wanted fill the gaps.
func createBySearch(t *target.Task, timers []*state.PosixTimer) error {
	if last := timers[len(timers)-1].Id; last >= maxSearch {
		return fmt.Errorf("timer %d: an id this large can only be given by Linux 6.15 or later", last)
	}
	next := int32(0)
	var some []*state.PosixTimer
	spare := map[int]bool{}
	flush := func() error {
		err := createSome(t, some, spare)
		some, spare = some[:0], map[int]bool{}
		return err
	}
	for _, m := range timers {
		for ; next <= m.Id; next++ {
			if next < m.Id {
				spare[len(some)] = true
				some = append(some, &state.PosixTimer{Id: next, Clock: unix.CLOCK_MONOTONIC, Notify: sigevNone})
			} else {
				some = append(some, m)
			}
			if len(some) == timersPerBatch {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// encodeSigevent writes struct sigevent of include/uapi/asm-generic/siginfo.h.
func encodeSigevent(b []byte, m *state.PosixTimer) {
	binary.LittleEndian.PutUint64(b, m.Value)
	binary.LittleEndian.PutUint32(b[8:], uint32(m.Signal))
	binary.LittleEndian.PutUint32(b[12:], uint32(m.Notify))
	binary.LittleEndian.PutUint32(b[16:], uint32(m.Thread))
}
