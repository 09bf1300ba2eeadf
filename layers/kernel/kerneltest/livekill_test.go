// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// roundsEnv marks a test binary that makes early rounds until it is killed:
// "PID FREEZER".
const roundsEnv = "MIG_KERNELTEST_ROUNDS"

func TestMain(m *testing.M) {
	for env, engine := range map[string]func(string) error{roundsEnv: roundsForEver, listsEnv: listsForEver} {
		if arg := os.Getenv(env); arg != "" {
			fmt.Fprintln(os.Stderr, engine(arg))
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// victim is the container that an engine's argument names.
func victim(arg string) (pid int, freezer *target.Freezer, err error) {
	var dir string
	if _, err := fmt.Sscan(arg, &pid, &dir); err != nil {
		return 0, nil, err
	}
	freezer, err = target.NewFreezer(dir)
	return pid, freezer, err
}

// roundsForEver copies a running process that nobody takes, a few rounds at a
// time.
func roundsForEver(arg string) error {
	pid, freezer, err := victim(arg)
	if err != nil {
		return err
	}
	nobody := record.SinkFunc(func(context.Context, *record.Record) error { return nil })
	fmt.Println("begun")
	for ctx := context.Background(); ; {
		source, err := target.NewSource(pid, freezer, nil)
		if err != nil {
			return err
		}
		mem := memory.New(target.Env{Source: source, Workers: 2})
		for n := range 4 {
			ids, err := source.List(ctx)
			if err != nil {
				return err
			}
			if _, err := mem.Checkpoint(ctx, record.Step{Stage: record.StageEarly, Process: ids[0], Round: n, Last: n == 3}, nobody); err != nil {
				return err
			}
		}
		if err := source.Release(ctx); err != nil {
			return err
		}
	}
}

// tracked are the traces of tracking that stay in a process: a thread that was
// held when its engine died may have a few instructions left to make.
func tracked(t *testing.T, pid int) (found []string) {
	t.Helper()
	for range 500 {
		if found = traces(t, pid); len(found) == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return found
}

func traces(t *testing.T, pid int) (found []string) {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(smaps)) {
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && strings.Contains(flags, " uw") {
			found = append(found, "a mapping with"+flags)
		}
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if to, _ := os.Readlink(l); strings.Contains(to, "userfaultfd") {
			found = append(found, l+" is a userfaultfd")
		}
	}
	return found
}

// killed starts an engine that env makes of this program, kills it after a moment and
// waits for its end.
func killed(t *testing.T, c *kerneltest.Container, env string, after time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", env, c.Pid, c.Freezer.Dir()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the engine has not begun: %v: %s", err, said.String())
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if s := said.String(); s != "" {
		t.Fatalf("the engine failed by itself: %s", s)
	}
}

// TestKilledRounds: whatever the moment at which the engine of a move dies, the
// program goes on unharmed and nothing is tracked any more.
func TestKilledRounds(t *testing.T) {
	for _, p := range []kerneltest.Program{
		{Source: "testdata/dirty.c", Args: []string{"8", "2", "-1"}},
		{Source: "testdata/traps.c", Args: []string{"munmap"}},
	} {
		t.Run(p.Source, func(t *testing.T) {
			c := kerneltest.Start(t, p)
			for i := range many(100) {
				killed(t, c, roundsEnv, time.Duration(rand.IntN(20000))*time.Microsecond)
				if found := tracked(t, c.Pid); len(found) > 0 {
					t.Fatalf("after %d kills: %q", i+1, found)
				}
				if i%10 == 0 {
					c.Verify()
				}
			}
			c.Verify()
		})
	}
}

// TestFailedRounds: a move that fails after rounds leaves the program running,
// and nothing tracked.
func TestFailedRounds(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/dirty.c", Args: []string{"8", "2", "-1"}})
	for _, name := range []string{"early", "residual"} {
		_, _, err := c.Move(rounds(3), append(whole, kerneltest.Of(failing(name)))...)
		if err == nil || !strings.Contains(err.Error(), "on purpose") {
			t.Fatalf("the move says %v", err)
		}
		if found := tracked(t, c.Pid); len(found) > 0 {
			t.Errorf("%s: %q", name, found)
		}
		c.Verify()
	}
}
