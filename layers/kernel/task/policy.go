// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// knownPolicy: the policies of sched(7) that nice value and priority describe.
func knownPolicy(policy uint32) bool {
	switch policy {
	case unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE, unix.SCHED_FIFO, unix.SCHED_RR:
		return true
	}
	return false
}

func policyRefusal(policy uint32) string {
	return fmt.Sprintf("its scheduling policy %d (SCHED_DEADLINE is %d) is not carried by this version", policy, unix.SCHED_DEADLINE)
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
