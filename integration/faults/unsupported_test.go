// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// still is for how long a process that nobody touches may not run on a busy
// machine. A freeze, seize and thaw would fit in: that none happened is what
// the request's own account says.
const still = 500 * time.Millisecond

// unsupported are states that no checkpoint carries, by the victim's mode, and
// what has to be said of each.
var unsupported = map[string][]string{
	"io_uring": {`io_uring`},
	"perf":     {`perf`},
	"thread":   {`descriptor table`},
	"mptcp":    {`MPTCP connection .* to`},
	"all":      {`io_uring`, `perf`, `descriptor table`},
}

func TestUnsupportedStateIsRefused(t *testing.T) {
	h := startHost(t, daemon.V24)
	for mode, want := range unsupported {
		t.Run(mode, func(t *testing.T) {
			v := h.run(t, "refused-"+strings.ReplaceAll(mode, "_", "-"), 4, mode)
			refused(t, v, want)
			v.remove()
		})
	}
}

// A process that is traced already is not ours to stop.
func TestDebuggerIsRefused(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "debugged", 4, "")
	detach := debug(t, v.pid)
	refused(t, v, []string{`(?i)trace|debug`})
	detach()
	dir := filepath.Join(t.TempDir(), "image")
	if err := v.checkpoint(dir).Err(); err != nil {
		t.Errorf("without the debugger: %v", err)
	}
	v.runsOn("a checkpoint")
	v.remove()
}

// debug attaches to a process as a debugger does, and lets it run: each signal
// stops it until the debugger passes the signal on.
func debug(t *testing.T, pid int) (detach func()) {
	t.Helper()
	attached, done, ended := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // ptrace knows its tracer by the thread
		defer runtime.UnlockOSThread()
		err := unix.PtraceSeize(pid)
		attached <- err
		for err == nil {
			var status unix.WaitStatus
			got, waitErr := unix.Wait4(pid, &status, unix.WALL|unix.WNOHANG, nil)
			switch {
			case waitErr != nil || got == pid && !status.Stopped():
				return // it is gone
			case got != pid:
				time.Sleep(200 * time.Microsecond)
				continue
			}
			select {
			case <-done:
				// PTRACE_DETACH with the signal that it was stopped by.
				_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(pid), 0, uintptr(status.StopSignal()), 0, 0)
				return
			default:
				err = unix.PtraceCont(pid, int(status.StopSignal()))
			}
		}
	}()
	if err := <-attached; err != nil {
		t.Fatal(err)
	}
	detach = sync.OnceFunc(func() { close(done); <-ended })
	t.Cleanup(detach)
	return detach
}

// refused asserts that a checkpoint is refused before the victim is touched,
// with each item named, and that mig check says the same.
func refused(t *testing.T, v *victim, want []string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	v.reset()
	result := v.checkpoint(dir)
	after := v.mustLive("after a refused checkpoint")
	if result.Code == 0 {
		t.Fatal("the checkpoint was not refused")
	}
	for _, pattern := range want {
		if !regexp.MustCompile(pattern).MatchString(result.Stderr) {
			t.Errorf("ctr says %q, want %q in it", result.Stderr, pattern)
		}
	}
	if after.longest > still {
		t.Errorf("the container did not run for %v", after.longest)
	}
	if got := v.status(); got != "RUNNING" {
		t.Errorf("it is %s", got)
	}
	empty(t, dir)

	last := v.host.requests(t)[0]
	if last.Container != v.id || last.Phase != "failed" || last.Failure == nil {
		t.Fatalf("mig status says %+v", last)
	}
	if f := last.Failure; f.Kind != "refused" || f.At != "preflight" || last.Progress.Downtime != 0 {
		t.Errorf("mig status says it failed at %q, as %q, after a stop of %v: %s", f.At, f.Kind, last.Progress.Downtime, f.Text)
	}
	report, code := v.check()
	if code != 1 || report.Possible || len(report.Findings) < len(want) {
		t.Errorf("mig check ends with %d and says %+v", code, report)
	}
	for _, f := range report.Findings {
		if f.What == "" || f.Why == "" && f.Remedy == "" {
			t.Errorf("nobody can act on %+v", f)
		}
	}
	for _, pattern := range want {
		if !regexp.MustCompile(pattern).MatchString(fmt.Sprint(report.Findings)) {
			t.Errorf("mig check finds %+v, want %q in it", report.Findings, pattern)
		}
	}
}

// What is lost is warned of: by mig check, and in the status of the checkpoint.
func TestLostKeysAreWarnedOf(t *testing.T) {
	const want = "3 keys of the session keyring"
	h := startHost(t, daemon.V24)
	v := h.run(t, "keys", 4, "keys")
	report, code := v.check()
	if code != 0 || !report.Possible || len(report.Findings) != 0 || len(report.Warnings) != 1 || report.Warnings[0].What != want || report.Warnings[0].Pid != v.pid {
		t.Errorf("mig check ends with %d and says %+v", code, report)
	}
	if err := v.checkpoint(filepath.Join(t.TempDir(), "image")).Err(); err != nil {
		t.Fatal(err)
	}
	if last := h.requests(t)[0]; len(last.Progress.Warnings) != 1 || !strings.Contains(last.Progress.Warnings[0], want) {
		t.Errorf("mig status says %+v", last)
	}
	v.runsOn("a checkpoint")
	v.remove()
}

// mig check of what can be checkpointed, and of what does not run.
func TestCheck(t *testing.T) {
	for _, version := range daemon.Versions {
		t.Run("containerd-"+string(version), func(t *testing.T) {
			h := startHost(t, version)
			v := h.run(t, "fine", 4, "")
			v.reset()
			report, code := v.check()
			if code != 0 || !report.Possible || len(report.Findings) != 0 || len(report.Warnings) != 0 || report.Pid != v.pid {
				t.Errorf("mig check ends with %d and says %+v", code, report)
			}
			if b := v.mustLive("after a check"); b.longest > still {
				t.Errorf("the container did not run for %v", b.longest)
			}
			v.remove()
		})
	}
}
