// SPDX-License-Identifier: Apache-2.0

package task

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// What an image says of scheduling is checked before any thread is made.
func TestForgedPoliciesAreRefused(t *testing.T) {
	deadline := func(change func(*state.Thread)) *state.Thread {
		th := &state.Thread{Tid: 1, Policy: unix.SCHED_DEADLINE, Runtime: 1, Deadline: 2, Period: 3}
		change(th)
		return th
	}
	for name, th := range map[string]*state.Thread{
		"a policy that is not known":         {Policy: 4},
		"a deadline of another policy":       {Policy: unix.SCHED_FIFO, Priority: 1, Runtime: 1, Deadline: 1, Period: 1},
		"flags of another policy":            {DeadlineFlags: unix.SCHED_FLAG_RECLAIM},
		"no deadline":                        {Policy: unix.SCHED_DEADLINE},
		"more than its deadline":             deadline(func(th *state.Thread) { th.Runtime = 3 }),
		"a deadline behind the period":       deadline(func(th *state.Thread) { th.Deadline = 4 }),
		"a period without end":               deadline(func(th *state.Thread) { th.Period = 1 << 63 }),
		"flags that mean something else":     deadline(func(th *state.Thread) { th.DeadlineFlags = unix.SCHED_FLAG_KEEP_ALL }),
		"clamps in the wrong order":          {UtilizationMin: 2, UtilizationMax: 1},
		"a clamp of more than one processor": {UtilizationMax: fullUtilization + 1},
	} {
		if validPolicy(th) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, th := range []*state.Thread{
		{}, {Policy: unix.SCHED_RR, Priority: 7, ResetOnFork: true}, {UtilizationMin: 3, UtilizationMax: fullUtilization},
		deadline(func(th *state.Thread) { th.DeadlineFlags = deadlineFlags }),
	} {
		if err := validPolicy(th); err != nil {
			t.Error(err)
		}
	}
}

// Clamps are set where the kernel has them and they differ: others refuse the
// whole call.
func TestClampsAreSetWhereTheyDiffer(t *testing.T) {
	clamped := &state.Thread{UtilizationMin: 100, UtilizationMax: 200}
	for _, c := range []struct {
		name string
		th   *state.Thread
		now  unix.SchedAttr
		want bool
	}{
		{"as they are", clamped, unix.SchedAttr{Util_min: 100, Util_max: 200}, false},
		{"others", clamped, unix.SchedAttr{Util_max: fullUtilization}, true},
		{"back to none", &state.Thread{UtilizationMax: fullUtilization}, unix.SchedAttr{Util_min: 1, Util_max: 2}, true},
		{"a kernel without clamps", clamped, unix.SchedAttr{}, false},
		{"an image of a kernel without", &state.Thread{}, unix.SchedAttr{Util_max: fullUtilization}, false},
	} {
		want, clamped := wantedPolicy(c.th, &c.now)
		const both = unix.SCHED_FLAG_UTIL_CLAMP_MIN | unix.SCHED_FLAG_UTIL_CLAMP_MAX
		if clamped != c.want || c.want != (want.Flags&both == both) || c.want && want.Util_max != c.th.UtilizationMax {
			t.Errorf("%s: %+v, %v", c.name, want, clamped)
		}
	}
}
