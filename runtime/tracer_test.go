// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tracerEnv makes this binary a tracer of the given pid, which takes no notice
// of its death until its standard input ends.
const tracerEnv = "MIG_TEST_TRACE"

func traceAndHold() error {
	runtime.LockOSThread()
	pid, err := strconv.Atoi(os.Getenv(tracerEnv))
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("seize: %w", errno)
	}
	fmt.Println("seized")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// TestExitHeldByTracer: a tracer in another process holds the init's exit
// back. Nothing of ours may wait for it but Done.
func TestExitHeldByTracer(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("traced", "sleep", "1000")
	c := s.start(s.options("traced", spec))
	awaitProgram(t, c.Init())

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), tracerEnv+"="+pidString(c))
	hold, err := cmd.StdinPipe()
	must(t, err)
	seized, err := cmd.StdoutPipe()
	must(t, err)
	release, err := Spawn(func() (int, error) { err := cmd.Start(); return cmd.Process.Pid, err })
	must(t, err)
	defer release()
	_, err = seized.Read(make([]byte, 1))
	must(t, err)

	must(t, unix.Kill(c.Init().Pid(), unix.SIGKILL))
	eventually(t, "the container counts as stopped", func() bool {
		st, err := c.Status()
		must(t, err)
		return st.State == StateStopped
	})
	want(t, "orphans", ReapOrphans(), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, c.Destroy(ctx))
	select {
	case <-c.Init().Done():
		t.Error("the exit was known before the tracer let go")
	case <-time.After(20 * time.Millisecond):
	}
	hold.Close()
	must(t, cmd.Wait())
	want(t, "status", waitDone(t, c.Init()), 137)
}

// TestPauseDuringExec: an exec session caught by the freezer in its start holds
// up neither Resume nor Status.
func TestPauseDuringExec(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("caught", "sleep", "1000")
	c := s.start(s.options("caught", spec))
	for range 10 {
		started := make(chan *Process)
		go func() {
			p, err := c.Exec(t.Context(), "e", process(spec, "true"), Stdio{})
			if err != nil && c.Init().exited() {
				t.Error(err)
			}
			started <- p // nil if the pause came first
		}()
		time.Sleep(3 * time.Millisecond)
		if err := c.Pause(); err != nil {
			t.Log(err) // a task on its way into the cgroup may prevent it
		} else {
			must(t, c.Resume())
		}
		if p := <-started; p != nil {
			waitDone(t, p)
		}
	}
}
