// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/arch/amd64"
	"github.com/io-mig/mig/spec/state"
)

// A relative sleep that a stop has interrupted is begun anew in another task, since
// the kernel tells nobody how much of it was left (its restart block). Where all
// of it has passed since, by the container's own clock, it is over instead: the
// kernel, which remembers the end, would have ended it, too
// (kernel/time/hrtimer.c, hrtimer_nanosleep_restart).

// sleeps reports whether a system call is such a sleep, if its flags agree.
func sleeps(nr uint64) bool { return nr == unix.SYS_NANOSLEEP || nr == unix.SYS_CLOCK_NANOSLEEP }

// timerAbstime is TIMER_ABSTIME of clock_nanosleep(2).
const timerAbstime = 1

// syscallSize is that of the instruction at which the call would be made anew.
const syscallSize = 2

// exportSleep notes how long a call that regs begin anew sleeps.
func exportSleep(p *target.Process, regs *amd64.Registers, m *state.ThreadCPU) error {
	request := regs.Rdi
	switch {
	case !sleeps(regs.Rax), regs.Rax == unix.SYS_CLOCK_NANOSLEEP && regs.Rsi&timerAbstime != 0:
		return nil
	case regs.Rax == unix.SYS_CLOCK_NANOSLEEP:
		request = regs.Rdx
	}
	b := make([]byte, 16) // struct timespec
	if p.Traced.Read(request, b) != nil {
		return nil // the call finds that out by itself
	}
	sec, nsec := int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))
	if sec < 0 || sec > math.MaxInt64/int64(time.Second)-1 || nsec < 0 || nsec >= int64(time.Second) || sec+nsec == 0 {
		return nil
	}
	ahead, err := clockAhead(p.Proc)
	if err != nil {
		return err
	}
	m.Sleep, m.Stopped = sec*int64(time.Second)+nsec, p.Traced.StoppedAt+ahead
	return nil
}

// endSleeps ends the sleeps that are over by now.
func endSleeps(t *target.Task, kept map[int]*saved) error {
	var now int64
	for _, k := range kept {
		if k.sleep == 0 {
			continue
		}
		if now == 0 {
			ahead, err := clockAhead(t.Proc)
			if err != nil {
				return err
			}
			var ts unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
				return fmt.Errorf("clock_gettime: %w", err)
			}
			now = ts.Nano() + ahead
		}
		k.endSleep(now)
	}
	return nil
}

// endSleep has the call return if its sleep is over at now.
func (k *saved) endSleep(now int64) {
	if k.sleep > 0 && now-k.stopped >= k.sleep {
		k.registers.Rax = 0
		k.registers.Rip += syscallSize
	}
}

// clockAhead is by how much CLOCK_MONOTONIC of a process is ahead of the host's.
func clockAhead(p procfs.Task) (int64, error) {
	list, err := p.TimensOffsets()
	if procfs.IsGone(err) {
		return 0, nil // this kernel has no time namespaces
	}
	if err != nil {
		return 0, fmt.Errorf("offsets of a time namespace: %w", err)
	}
	own, err := procfs.Host().Process(unix.Getpid()).TimensOffsets()
	if err != nil {
		return 0, fmt.Errorf("offsets of a time namespace: %w", err)
	}
	return monotonicOf(list) - monotonicOf(own), nil
}

func monotonicOf(list []procfs.TimensOffset) int64 {
	for _, o := range list {
		if o.Clock == "monotonic" {
			return o.Sec*int64(time.Second) + o.Nsec
		}
	}
	return 0
}
