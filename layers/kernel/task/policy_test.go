// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDeadlinesAreRefused(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := cmd.Process.Pid
	if what := unknownPolicy(pid); what != "" {
		t.Fatalf("an ordinary process: %s", what)
	}
	period := uint64(time.Second)
	deadline := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE, Runtime: uint64(time.Millisecond), Deadline: period, Period: period}
	if err := unix.SchedSetAttr(pid, deadline, 0); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		t.Skip("deadlines need a right or time that is not there: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if what := unknownPolicy(pid); !strings.Contains(what, "policy 6") {
		t.Fatalf("a process with a deadline: %q", what)
	}
}
