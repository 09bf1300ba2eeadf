// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestRun(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		out, code := d.tryUntil("", func(out string) bool { return strings.Contains(out, "out\n") && strings.Contains(out, "err\n") },
			d.runArgs([]string{"--rm"}, "one", "sh", "-c", "echo out; echo err >&2; read end; exit 7")...)
		if code != 7 || !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") {
			t.Errorf("exit status %d and output %q, want 7 and both lines", code, out)
		}
		out, code = d.tryUntil("through\n", func(out string) bool { return out == "through\n" }, d.runArgs([]string{"--rm"}, "one", "cat")...)
		if code != 0 || out != "through\n" {
			t.Errorf("cat: exit status %d, output %q", code, out)
		}
		out, code = d.try(d.runArgs([]string{"--rm"}, "one", "sh", "-c", "kill -TERM $$")...)
		if code != 0 && code != 128+int(syscall.SIGTERM) {
			t.Errorf("init that kills itself: exit status %d, output %q", code, out)
		}
		out, code = d.try(d.runArgs([]string{"--rm"}, "one", "nosuchprogram")...)
		if code == 0 || !strings.Contains(out, "executable file not found") {
			t.Errorf("missing program: exit status %d, output %q", code, out)
		}
		// More output than a pipe holds.
		out, _ = d.tryUntil("", func(out string) bool { return len(out) >= 1000000 },
			d.runArgs([]string{"--rm"}, "one", "sh", "-c", "yes 0123456789abcdef | head -c 1000000; read end")...)
		if len(out) != 1000000 {
			t.Errorf("%d bytes of output, want 1000000", len(out))
		}
	})
}

// TestIgnoredSignals: what the daemon was started with does not reach a
// container.
func TestIgnoredSignals(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		d.stop()
		d.under = []string{"/bin/sh", "-c", `trap "" HUP INT QUIT PIPE TERM USR1 USR2; exec "$@"`, "sh"}
		d.start()
		d.detached("one", nil, "sleep", "1000")
		for name, out := range map[string]string{
			"the init": d.must("task", "exec", "--exec-id", "e1", "one", "cat", "/proc/1/status"),
			"an exec":  d.must("task", "exec", "--exec-id", "e2", "one", "cat", "/proc/self/status"),
		} {
			if ignored := ignoredSignals(t, out); ignored != 0 {
				t.Errorf("%s of a container ignores signals %#x:\n%s", name, ignored, out)
			}
		}
		d.must("task", "rm", "-f", "one")
		d.must("container", "rm", "one")
	})
}

// ignoredSignals reads a status file. Signals above 31 do not count: posix_spawn(3)
// of the GNU C library, which make uses, starts programs with its own signal 32
// ignored, and nobody can tell.
func ignoredSignals(t *testing.T, status string) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(status, "\nSigIgn:\t")
	text, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		t.Fatalf("no SigIgn: %v in %q", err, status)
	}
	return mask & (1<<31 - 1)
}

func TestLife(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		d.detached("one", nil, "sleep", "1000")
		d.expectStatus("one", "RUNNING")
		out, code := d.tryUntil("", func(out string) bool { return out == "in\n" },
			"task", "exec", "--exec-id", "e1", "one", "sh", "-c", "echo in; read end; exit 3")
		if code != 3 || out != "in\n" {
			t.Errorf("exec: exit status %d, output %q", code, out)
		}
		out, code = d.try("task", "exec", "--exec-id", "e2", "one", "nosuchprogram")
		if code == 0 || !strings.Contains(out, "executable file not found") {
			t.Errorf("exec of a missing program: exit status %d, output %q", code, out)
		}
		if out := d.must("task", "ps", "one"); !strings.Contains(out, d.pid("one")) {
			t.Errorf("task ps: no process %s in %q", d.pid("one"), out)
		}
		// A thread that libcontainer has moved to the container must not be the
		// shim's main one, which /proc/PID shows.
		own, _ := os.Readlink("/proc/self/ns/mnt")
		if got, err := os.Readlink("/proc/" + d.shimPid("one") + "/ns/mnt"); err != nil || got != own {
			t.Errorf("the shim's mount namespace is %s, %v; want %s", got, err, own)
		}
		if out := d.must("task", "metrics", "one"); !strings.Contains(out, "memory") {
			t.Errorf("task metrics: %q", out)
		}

		d.must("task", "pause", "one")
		d.expectStatus("one", "PAUSED")
		d.expectError("cannot pause a paused container", "task", "pause", "one")
		d.expectError("cannot exec in a paused state", "task", "exec", "--exec-id", "e3", "one", "true")
		d.expectError("", "task", "rm", "one")
		d.must("task", "resume", "one")
		d.expectStatus("one", "RUNNING")
		d.expectError("cannot resume a running process", "task", "resume", "one")

		// SIGKILL reaches a frozen container.
		d.must("task", "pause", "one")
		d.must("task", "kill", "-s", "9", "one")
		d.eventually("killed while paused", func() bool { return d.status("one") == "STOPPED" })
		d.expectError("", "task", "kill", "-s", "9", "one")
		d.must("task", "rm", "one")
		if !strings.Contains(d.warnings, "exit code 137") {
			t.Errorf("task rm says %q, want exit code 137", d.warnings)
		}
		d.must("container", "rm", "one")
	})
}

func TestRestartOfContainerd(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		d.detached("one", nil, "sleep", "1000")
		pid := d.pid("one")
		d.stop()
		d.start()
		d.expectStatus("one", "RUNNING")
		if got := d.pid("one"); got != pid {
			t.Errorf("pid after the restart %s, want %s", got, pid)
		}
		if out, code := d.try("task", "exec", "--exec-id", "e1", "one", "echo", "still here"); code != 0 || out != "still here\n" {
			t.Errorf("exec: exit status %d, output %q", code, out)
		}
		// An exit while nobody listens is known afterwards.
		d.stop()
		kill(t, pid)
		d.start()
		d.eventually("the exit is seen", func() bool { s := d.status("one"); return s == "STOPPED" || s == "" })
	})
}

func TestKilledShimLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		d.detached("one", nil, "sh", "-c", "sleep 1000 & sleep 1000")
		d.must("task", "exec", "-d", "--exec-id", "e1", "one", "sleep", "1000")
		kill(t, d.shimPid("one"))
		d.eventually("containerd has cleaned up", func() bool { return !exists(d.bundle("one")) })
		left := d.leftovers()
		for _, what := range []string{"mounts", "cgroups", "processes", "sockets"} {
			if what == "processes" {
				left[what] = without(left[what], "containerd")
			}
			if len(left[what]) > 0 {
				t.Errorf("left behind: %s: %v", what, left[what])
			}
		}
		// The name can be used again.
		d.must("container", "rm", "one")
		if out, code := d.try(d.runArgs([]string{"--rm"}, "one", "echo", "again")...); code != 0 || out != "again\n" {
			t.Errorf("run: exit status %d, output %q", code, out)
		}
	})
}

// shimPid is the shim that serves a container: the parent of its init.
func (d *daemon) shimPid(id string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", d.pid(id), "status"))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	d.t.Fatal("no parent")
	return ""
}

func (d *daemon) expectStatus(id, want string) {
	d.t.Helper()
	if got := d.status(id); got != want {
		d.t.Errorf("%s is %q, want %q", id, got, want)
	}
}

// expectError runs ctr, which must fail and say text.
func (d *daemon) expectError(text string, args ...string) {
	d.t.Helper()
	out, code := d.try(args...)
	if code == 0 || !strings.Contains(out, text) {
		d.t.Errorf("ctr %s: exit status %d, output %q; want a failure with %q", strings.Join(args, " "), code, out, text)
	}
}
