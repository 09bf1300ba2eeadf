// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestCreateStartExit(t *testing.T) {
	s := newSandbox(t)
	out := newOutput(t)
	o := s.options("life", s.spec("life", sh("echo hello; exit 7")...))
	o.Stdio = Stdio{Stdout: out.w}
	o.PidFile = filepath.Join(s.bundle, "pid")
	c := s.create(o)

	st, err := c.Status()
	must(t, err)
	want(t, "state after create", st, Status{StateCreated, c.Init().Pid()})
	pid, err := os.ReadFile(o.PidFile)
	must(t, err)
	want(t, "pid file", string(pid), strconv.Itoa(c.Init().Pid()))

	must(t, c.Start(t.Context()))
	want(t, "exit status", waitDone(t, c.Init()), 7)
	want(t, "output", out.String(), "hello\n")
	st, err = c.Status()
	must(t, err)
	want(t, "state at the end", st, Status{State: StateStopped})
	if err := c.Start(t.Context()); !errors.Is(err, ErrNotCreated) {
		t.Error("second start:", err)
	}
	if err := c.Signal(unix.SIGTERM, false); !errors.Is(err, ErrNotRunning) {
		t.Error("signal to a dead container:", err)
	}
	if _, err := c.Exec(t.Context(), "x", c.TargetProcess(), Stdio{}); !errors.Is(err, ErrNotRunning) {
		t.Error("exec in a dead container:", err)
	}
}

func TestExitBySignal(t *testing.T) {
	s := newSandbox(t)
	c := s.start(s.options("sig", s.spec("sig", "sleep", "1000")))
	must(t, c.Signal(unix.SIGKILL, false))
	want(t, "exit status", waitDone(t, c.Init()), 128+int(unix.SIGKILL))
}

func TestStartOfDeadInit(t *testing.T) {
	s := newSandbox(t)
	c := s.create(s.options("dead", s.spec("dead", "true")))
	must(t, unix.Kill(c.Init().Pid(), unix.SIGKILL))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Start(ctx); !errors.Is(err, ErrNotRunning) {
		t.Error("start:", err)
	}
}

func TestSameID(t *testing.T) {
	s := newSandbox(t)
	c := s.create(s.options("twin", s.spec("twin", "sleep", "1000")))
	spec := s.spec("twin-2", "true")
	if _, err := Create(t.Context(), s.options("twin", spec)); !errors.Is(err, ErrExists) {
		t.Error("second create:", err)
	}
	// The first one is unharmed.
	must(t, c.Start(t.Context()))
}

// TestFailureLeavesNothing breaks creation at several stages.
func TestFailureLeavesNothing(t *testing.T) {
	cases := map[string]func(*CreateOptions){
		"missing program": func(o *CreateOptions) { o.Spec.Process.Args = []string{"/no/such/program"} },
		"missing bind source": func(o *CreateOptions) {
			o.Spec.Mounts = append(o.Spec.Mounts, bind("/no/such/dir", "/tmp"))
		},
		"failing hook": func(o *CreateOptions) { o.Spec.Hooks = hooks("createRuntime", "exit 3") },
		"bad sysctl":   func(o *CreateOptions) { o.Spec.Linux.Sysctl = map[string]string{"net.no.such": "1"} },
		"pid file":     func(o *CreateOptions) { o.PidFile = "/no/such/dir/pid" },
		"bad rlimit":   func(o *CreateOptions) { o.Spec.Process.Rlimits[0].Type = "RLIMIT_NONE" },
		"unmapped uid": func(o *CreateOptions) { withUserns(o.Spec); o.Spec.Process.User.UID = 4000000 },
	}
	for name, breakIt := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			id := "fail-" + strings.ReplaceAll(name, " ", "-")
			o := s.options(id, s.spec(id, "true"))
			breakIt(&o)
			c, err := Create(t.Context(), o)
			if err == nil {
				s.destroy(c)
				t.Fatal("it was created")
			}
			t.Log(err)
			left, _ := filepath.Glob("/sys/fs/cgroup/*" + o.Spec.Linux.CgroupsPath)
			if len(left) > 0 {
				t.Error("cgroups left:", left)
			}
			if _, err := os.Stat(filepath.Join(s.root, id)); !errors.Is(err, os.ErrNotExist) {
				t.Error("state directory left:", err)
			}
			if pids := childPids(); len(pids) > 0 {
				t.Error("children left:", pids)
			}
		})
	}
}

func TestConcurrentContainers(t *testing.T) {
	s := newSandbox(t)
	const n = 50
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			id := fmt.Sprintf("many-%d", i)
			spec := s.spec(id, sh(fmt.Sprintf("exit %d", i+1))...)
			c, err := Create(t.Context(), s.options(id, spec))
			if err != nil {
				t.Error(err)
				return
			}
			defer s.destroy(c)
			if i%2 == 0 { // an exec session in the created container
				p, err := c.Exec(t.Context(), "e", process(spec, sh(fmt.Sprintf("exit %d", 100+i))...), Stdio{})
				if err != nil {
					t.Error(err)
				} else {
					want(t, "exec's status", waitDone(t, p), 100+i)
				}
			}
			if err := c.Start(t.Context()); err != nil {
				t.Error(err)
				return
			}
			want(t, id, waitDone(t, c.Init()), i+1)
		})
	}
	// Somebody asks for orphans all the time: no status may get lost by it.
	stop := make(chan struct{})
	var reaper sync.WaitGroup
	reaper.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				want(t, "orphans where there are none", ReapOrphans(), 0)
			}
		}
	})
	wg.Wait()
	close(stop)
	reaper.Wait()
}

func TestDestroyOfRunning(t *testing.T) {
	s := newSandbox(t)
	c := s.start(s.options("victim", s.spec("victim", sh("sleep 1000 & sleep 1000")...)))
	must(t, unix.Kill(c.Init().Pid(), unix.SIGKILL))
	s.destroy(c)
	s.destroy(c) // again: nothing to do
}

func TestDestroyPaused(t *testing.T) {
	s := newSandbox(t)
	c := s.start(s.options("ice", s.spec("ice", "sleep", "1000")))
	must(t, c.Pause())
	s.destroy(c)
}

// TestDestroyForkBomb: in the host's pid namespace nobody kills the children
// with their parent. Here each lives only for as long as it takes to fork the
// next, so that a list of pids is out of date when it has been read.
func TestDestroyForkBomb(t *testing.T) {
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	s := newSandbox(t)
	chains := strings.Repeat("f & ", 8)
	spec := s.spec("bomb", sh("f() { f & }; "+chains+"sleep 1000")...)
	dropNamespace(spec, specs.PIDNamespace)
	c := s.start(s.options("bomb", spec))
	awaitProgram(t, c.Init())
	seen := 0
	eventually(t, "it forks", func() bool {
		seen += ReapOrphans()
		return seen > 100
	})
	s.destroy(c)
	eventually(t, "orphans are reaped", func() bool {
		ReapOrphans()
		return len(childPids()) == 0
	})
}

// TestStartEndsWithContext: a paused init cannot take the signal to start.
func TestStartEndsWithContext(t *testing.T) {
	s := newSandbox(t)
	c := s.create(s.options("stuck", s.spec("stuck", "sleep", "1000")))
	must(t, c.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("start of a paused container:", err)
	}
	must(t, c.Resume())
	must(t, c.Start(t.Context()))
}
