// SPDX-License-Identifier: Apache-2.0

package timer

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// refusal is a timer that cannot be carried.
type refusal struct{ what, why string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

// refuse names the timers that cannot be made again, of a process with so many
// threads.
func refuse(list []procfs.Timer, threads int) []refusal {
	var out []refusal
	for _, t := range list {
		what := fmt.Sprintf("timer %d on clock %d", t.ID, t.ClockID)
		switch {
		case t.ClockID == unix.CLOCK_THREAD_CPUTIME_ID && threads > 1:
			out = append(out, refusal{what, "it counts the CPU time of the thread that made it, and the kernel does not tell which of several that was"})
		case !knownClock(int32(t.ClockID)):
			out = append(out, refusal{what, "the clock is not known to this version"})
		}
	}
	return out
}

// knownClock: clocks that exist on every host. Negative ids are the CPU clocks
// of a process or thread (its id in the upper bits, inverted) unless the lowest
// bits say that they stand for a descriptor (clock_getres(2), CLOCKFD).
func knownClock(id int32) bool {
	const kind, descriptor = 7, 3
	if id < 0 {
		return id&kind != descriptor
	}
	switch id {
	case unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_PROCESS_CPUTIME_ID, unix.CLOCK_THREAD_CPUTIME_ID,
		unix.CLOCK_BOOTTIME, unix.CLOCK_REALTIME_ALARM, unix.CLOCK_BOOTTIME_ALARM, unix.CLOCK_TAI:
		return true
	}
	return false
}

// Preflight names what this version cannot carry, while the tasks run.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	out, err := s.env.Source.Survey(ctx, inspect)
	if err != nil {
		return nil, fmt.Errorf("timer: %w", err)
	}
	return out, nil
}

// inspect looks at one process.
func inspect(task procfs.Task) ([]record.Finding, error) {
	finding := func(r refusal) record.Finding {
		return record.Finding{Pid: task.Pid(), FD: -1, Subsystem: Name, What: r.what, Why: r.why}
	}
	list, err := task.Timers()
	if procfs.IsGone(err) {
		f := finding(refusal{"its timers", "the kernel does not list them"})
		f.Remedy = "use a kernel with CONFIG_CHECKPOINT_RESTORE"
		return []record.Finding{f}, nil
	}
	if err != nil {
		return nil, err
	}
	threads, err := task.Threads()
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for _, r := range refuse(list, len(threads)) {
		out = append(out, finding(r))
	}
	return out, nil
}
