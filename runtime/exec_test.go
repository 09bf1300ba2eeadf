// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func pidString(c *Container) string { return strconv.Itoa(c.Init().Pid()) }

func ownerOf(fi os.FileInfo) uint32 { return fi.Sys().(*syscall.Stat_t).Uid }

func TestExec(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("exec", "sleep", "1000")
	spec.Linux.Seccomp = denyMkdir()
	c := s.start(s.options("exec", spec))

	p := process(spec, sh("id -u; id -g; echo $GREETING; pwd; ulimit -n; cat /proc/self/oom_score_adj; grep -E 'CapEff|Seccomp:' /proc/self/status; exit 9")...)
	caps := []string{"CAP_KILL"}
	p.User = specs.User{UID: 1000, GID: 1002}
	p.Env = append(p.Env, "GREETING=hi")
	p.Cwd = "/tmp"
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 99, Soft: 77}}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps, Inheritable: caps, Ambient: caps}
	out, status := s.exec(c, p)
	want(t, "status", status, 9)
	want(t, "output", strings.Join(strings.Fields(out), " "), "1000 1002 hi /tmp 77 0 CapEff: 0000000000000020 Seccomp: 2")

	if _, err := c.Exec(t.Context(), "no", process(spec, "/no/such"), Stdio{}); err == nil {
		t.Error("a missing program was executed")
	}
	pids, err := c.Pids()
	must(t, err)
	want(t, "processes left", len(pids), 1)
}

// TestExecAffinity: an exec session's own CPUs, and the cpuset's without.
func TestExecAffinity(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	s := newSandbox(t)
	spec := s.spec("exec-cpu", "sleep", "1000")
	c := s.start(s.options("exec-cpu", spec))
	p := process(spec, "nproc")
	p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-1", Final: "1"}
	out, _ := s.exec(c, p)
	want(t, "CPUs", out, "1\n")
	p.ExecCPUAffinity = nil
	out, _ = s.exec(c, p)
	want(t, "CPUs without an affinity", out, fmt.Sprintln(runtime.NumCPU()))
}

func TestExecSignal(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("exec-sig", "sleep", "1000")
	c := s.start(s.options("exec-sig", spec))
	p, err := c.Exec(t.Context(), "e", process(spec, "sleep", "1000"), Stdio{})
	must(t, err)
	awaitProgram(t, p)
	must(t, p.Signal(unix.SIGUSR1))
	want(t, "status", waitDone(t, p), 128+int(unix.SIGUSR1))
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, ErrNotRunning) {
		t.Error("signal to a dead session:", err)
	}
	st, err := c.Status()
	must(t, err)
	want(t, "container", st.State, StateRunning)
}

func TestPauseResume(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("pause", sh("while :; do :; done")...)
	c := s.start(s.options("pause", spec))
	must(t, c.Pause())
	st, err := c.Status()
	must(t, err)
	want(t, "state", st.State, StatePaused)
	before := cpuTime(t, c)
	time.Sleep(50 * time.Millisecond)
	want(t, "CPU time spent while paused", cpuTime(t, c)-before, uint64(0))
	if err := c.Pause(); !errors.Is(err, ErrPaused) {
		t.Error("second pause:", err)
	}
	if _, err := c.Exec(t.Context(), "e", process(spec, "true"), Stdio{}); !errors.Is(err, ErrPaused) {
		t.Error("exec while paused:", err)
	}
	must(t, c.Resume())
	eventually(t, "runs again", func() bool { return cpuTime(t, c) > before })
	if err := c.Resume(); !errors.Is(err, ErrNotPaused) {
		t.Error("second resume:", err)
	}
	must(t, c.Pause())
	must(t, c.Signal(unix.SIGKILL, false)) // kills although it is frozen
	want(t, "status", waitDone(t, c.Init()), 137)
}

// cpuTime is utime + stime of the init, in clock ticks (proc_pid_stat(5)).
func cpuTime(t *testing.T, c *Container) uint64 {
	t.Helper()
	data, err := os.ReadFile("/proc/" + pidString(c) + "/stat")
	must(t, err)
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')'):]))
	user, err := strconv.ParseUint(f[12], 10, 64)
	must(t, err)
	system, err := strconv.ParseUint(f[13], 10, 64)
	must(t, err)
	return user + system
}

func TestSignalAll(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("all", sh("trap 'echo init' USR1; (trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.02; done) & while :; do wait; done")...)
	r, w, err := os.Pipe()
	must(t, err)
	o := s.options("all", spec)
	o.Stdio.Stdout = w
	c := s.start(o)
	w.Close()
	defer r.Close()
	buf := make([]byte, 64)
	_, err = r.Read(buf)
	must(t, err)
	must(t, c.Signal(unix.SIGUSR1, true))
	got := ""
	eventually(t, "both answer", func() bool {
		n, _ := r.Read(buf)
		got += string(buf[:n])
		return strings.Contains(got, "init") && strings.Contains(got, "child")
	})
	must(t, c.Signal(unix.SIGKILL, true))
	want(t, "status", waitDone(t, c.Init()), 137)
}

// TestHostPID: without a pid namespace of its own, a container's processes
// outlive its init and become children of the subreaper.
func TestHostPID(t *testing.T) {
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	s := newSandbox(t)
	spec := s.spec("hostpid", sh("sleep 1000 & sleep 1000 & exit 4")...)
	dropNamespace(spec, specs.PIDNamespace)
	c := s.start(s.options("hostpid", spec))
	want(t, "status", waitDone(t, c.Init()), 4)
	pids, err := c.Pids()
	must(t, err)
	want(t, "orphans", len(pids), 2)
	s.destroy(c)
	reaped := 0
	eventually(t, "orphans are reaped", func() bool {
		reaped += ReapOrphans()
		return len(childPids()) == 0
	})
	want(t, "reaped", reaped, 2)
}

// TestOrphansWaitForStarts: nothing is reaped while a process is being started.
func TestOrphansWaitForStarts(t *testing.T) {
	pid := 0
	release, err := Spawn(func() (int, error) {
		var err error
		pid, err = syscall.ForkExec("/bin/true", []string{"true"}, nil)
		must(t, err)
		var info unix.Siginfo
		must(t, unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil))
		want(t, "reaped during a start", ReapOrphans(), 0)
		return pid, nil
	})
	must(t, err)
	want(t, "reaped a child that has an owner", ReapOrphans(), 0)
	release()
	want(t, "reaped after it was given up", ReapOrphans(), 1)
	if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.ECHILD {
		t.Error("the child is there still:", err)
	}
}
