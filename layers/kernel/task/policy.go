// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// deadlineFlags are those of sched_setattr(2) that mean something for
// SCHED_DEADLINE alone.
const deadlineFlags = unix.SCHED_FLAG_RECLAIM | unix.SCHED_FLAG_DL_OVERRUN

// fullUtilization is SCHED_CAPACITY_SCALE of include/linux/sched.h: no clamp at all
// lets a thread have between 0 and that.
const fullUtilization = 1024

// maxDeadline is the largest period that sched_setattr(2) takes, in nanoseconds
// (__checkparam_dl of kernel/sched/deadline.c).
const maxDeadline = 1<<63 - 1

// knownPolicy: those of sched(7).
func knownPolicy(policy uint32) bool {
	switch policy {
	case unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE, unix.SCHED_FIFO, unix.SCHED_RR, unix.SCHED_DEADLINE:
		return true
	}
	return false
}

func policyRefusal(policy uint32) string {
	return fmt.Sprintf("its scheduling policy %d is not known to this version", policy)
}

// unknownPolicy names a policy of any of a process's threads that is not
// carried. Threads that are gone have none.
func unknownPolicy(pid int) string {
	tids, err := procfs.Host().Process(pid).Threads()
	if err != nil {
		return ""
	}
	for _, tid := range tids {
		if attr, err := unix.SchedGetAttr(tid, 0); err == nil && !knownPolicy(attr.Policy) {
			return fmt.Sprintf("thread %d: %s", tid, policyRefusal(attr.Policy))
		}
	}
	return ""
}

// describePolicy reads how a thread is scheduled.
func describePolicy(tid int, m *state.Thread) error {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return fmt.Errorf("sched_getattr: %w", err)
	}
	if !knownPolicy(attr.Policy) {
		return errors.New(policyRefusal(attr.Policy))
	}
	m.Policy, m.Nice, m.Priority = attr.Policy, attr.Nice, attr.Priority
	m.ResetOnFork = attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0
	if attr.Policy == unix.SCHED_DEADLINE {
		m.Runtime, m.Deadline, m.Period = attr.Runtime, attr.Deadline, attr.Period
		m.DeadlineFlags = uint32(attr.Flags & deadlineFlags)
	}
	m.UtilizationMin, m.UtilizationMax = attr.Util_min, attr.Util_max
	return nil
}

// validPolicy checks what an image says.
func validPolicy(th *state.Thread) error {
	deadline := th.Policy == unix.SCHED_DEADLINE
	switch {
	case !knownPolicy(th.Policy):
		return fmt.Errorf("%w: thread %d has scheduling policy %d", errImage, th.Tid, th.Policy)
	case deadline != (th.Runtime|th.Deadline|th.Period != 0) || !deadline && th.DeadlineFlags != 0 || th.DeadlineFlags&^deadlineFlags != 0 ||
		th.Runtime > th.Deadline || th.Deadline > th.Period || th.Period > maxDeadline:
		return fmt.Errorf("%w: thread %d is to run %d of %d ns with policy %d", errImage, th.Tid, th.Runtime, th.Period, th.Policy)
	case th.UtilizationMin > th.UtilizationMax || th.UtilizationMax > fullUtilization:
		return fmt.Errorf("%w: thread %d uses between %d and %d of a processor", errImage, th.Tid, th.UtilizationMin, th.UtilizationMax)
	}
	return nil
}

// wantedPolicy is what sched_setattr(2) is to set; clamped: with clamps.
func wantedPolicy(th *state.Thread, now *unix.SchedAttr) (want *unix.SchedAttr, clamped bool) {
	want = &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: th.Policy, Nice: th.Nice, Priority: th.Priority,
		Runtime: th.Runtime, Deadline: th.Deadline, Period: th.Period, Flags: uint64(th.DeadlineFlags),
	}
	if th.ResetOnFork {
		want.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	}
	known := th.UtilizationMax != 0 && now.Util_max != 0
	if known && (th.UtilizationMin != now.Util_min || th.UtilizationMax != now.Util_max) {
		want.Util_min, want.Util_max, clamped = th.UtilizationMin, th.UtilizationMax, true
		want.Flags |= unix.SCHED_FLAG_UTIL_CLAMP_MIN | unix.SCHED_FLAG_UTIL_CLAMP_MAX
	}
	return want, clamped
}

// schedule sets policy and nice value. Without CAP_SYS_NICE in the live spec an
// image can only make a thread nicer than it would be started.
func schedule(t *target.Task, th *state.Thread) error {
	host := t.Threads[int(th.Tid)].Tid
	now, err := unix.SchedGetAttr(host, 0)
	if err != nil {
		return err
	}
	want, clamped := wantedPolicy(th, now)
	if now.Policy == want.Policy && now.Nice == want.Nice && now.Priority == want.Priority && now.Flags&unix.SCHED_FLAG_RESET_ON_FORK == want.Flags && !clamped {
		return nil
	}
	if t.Allowed().Effective>>capSysNice&1 == 0 && !nicer(now, want, clamped) {
		return nil
	}
	err = unix.SchedSetAttr(host, want, 0)
	if th.Policy == unix.SCHED_DEADLINE && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EPERM)) {
		return fmt.Errorf("run %d ns of each %d (SCHED_DEADLINE): this host does not have that time free for it, or the container may not use all its processors: %w", th.Runtime, th.Period, err)
	}
	return err
}

// nicer: what a thread may do to itself without CAP_SYS_NICE.
func nicer(now, want *unix.SchedAttr, clamped bool) bool {
	return now.Policy == unix.SCHED_NORMAL && want.Nice >= now.Nice && !clamped &&
		(want.Policy == unix.SCHED_NORMAL || want.Policy == unix.SCHED_BATCH || want.Policy == unix.SCHED_IDLE)
}

// Values of include/uapi/linux/prctl.h that x/sys lacks.
const (
	prSchedCore    = 62
	prSchedCoreGet = 0
	pidTypePid     = 0
)

// coreCookies warns of threads that share a core with nobody but those of their
// group (PR_SCHED_CORE of prctl(2)).
func coreCookies(t procfs.Task) ([]record.Finding, error) {
	tids, err := t.Threads()
	if err != nil {
		return nil, err
	}
	for _, tid := range tids {
		var cookie uint64
		_, _, e := unix.Syscall6(unix.SYS_PRCTL, prSchedCore, prSchedCoreGet, uintptr(tid), pidTypePid, uintptr(unsafe.Pointer(&cookie)), 0)
		if e == unix.EINVAL || e == unix.ENODEV {
			return nil, nil // a kernel without it, or processors without hyper-threads
		}
		if e == 0 && cookie != 0 {
			return []record.Finding{{
				Pid: t.Pid(), FD: -1, Subsystem: Name, Warning: true,
				What: fmt.Sprintf("thread %d", tid), Why: "its core scheduling cookie (prctl(PR_SCHED_CORE)) is lost",
			}}, nil
		}
	}
	return nil, nil
}
