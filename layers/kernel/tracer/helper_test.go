// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const engineEnv = "MIG_TRACER_TEST_ENGINE" // "PID": run engineLoop

func TestMain(m *testing.M) {
	if pid := os.Getenv(engineEnv); pid != "" {
		engineLoop(pid)
		return
	}
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

var (
	buildMu  sync.Mutex
	buildDir string
)

// program builds testdata/NAME.c statically, once.
func program(t testing.TB, name string) string {
	t.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	if buildDir == "" {
		var err error
		if buildDir, err = os.MkdirTemp("", "mig-tracer-test"); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(buildDir, name)
	if _, err := os.Stat(out); err == nil {
		return out
	}
	src := filepath.Join("testdata", strings.TrimSuffix(name, "-dyn")+".c")
	args := []string{"-O1", "-static", "-pthread", "-o", out, src}
	if strings.HasSuffix(name, "-dyn") {
		args = append([]string{"-fPIE", "-pie"}, args[0], "-pthread", "-o", out, src)
	}
	if b, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, b)
	}
	return out
}

// target is a running test program.
type target struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	pid int
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: ptrace of programs of others, SUSPEND_SECCOMP")
	}
}

func launch(t testing.TB, name string, args ...string) *target {
	t.Helper()
	needRoot(t)
	g := &target{t: t, cmd: exec.Command(program(t, name), args...)}
	g.cmd.Stderr = os.Stderr
	g.in, _ = g.cmd.StdinPipe()
	out, _ := g.cmd.StdoutPipe()
	g.out = bufio.NewReader(out)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.pid = g.cmd.Process.Pid
	t.Cleanup(func() { _ = g.cmd.Process.Kill(); _ = g.cmd.Wait() })
	if s := g.line(); s != "ready" {
		t.Fatalf("%s said %q", name, s)
	}
	return g
}

func (g *target) line() string {
	g.t.Helper()
	type answer struct {
		s   string
		err error
	}
	c := make(chan answer, 1)
	go func() { s, err := g.out.ReadString('\n'); c <- answer{s, err} }()
	select {
	case a := <-c:
		if a.err != nil {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
			g.t.Fatalf("target %d died: %v\n%s", g.pid, a.err, b)
		}
		return strings.TrimSpace(a.s)
	case <-time.After(20 * time.Second):
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
		g.t.Fatalf("target %d does not answer\n%s", g.pid, b)
	}
	return ""
}

// verify has the target check itself and returns its numbers.
func (g *target) verify() (rt, eintr, alarms, maps int) {
	g.t.Helper()
	if _, err := g.in.Write([]byte("v")); err != nil {
		g.t.Fatal(err)
	}
	s := g.line()
	if n, _ := fmt.Sscanf(s, "OK rt=%d eintr=%d alarms=%d maps=%d", &rt, &eintr, &alarms, &maps); n != 4 {
		g.t.Fatalf("target says: %s", s)
	}
	return rt, eintr, alarms, maps
}

func (g *target) state() byte {
	st, err := readStatus(g.pid, g.pid)
	if err != nil {
		g.t.Fatal(err)
	}
	return st.State
}

func (g *target) waitState(want byte) {
	g.t.Helper()
	for range 2000 {
		if g.state() == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	g.t.Fatalf("state is %c, want %c", g.state(), want)
}

func newTracer(t testing.TB) *Tracer {
	tr := New()
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return tr
}

func attach(t testing.TB, tr *Tracer, pid int) *Process {
	t.Helper()
	p, err := tr.Attach(context.Background(), Options{Pid: pid})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var getpid = Syscall(unix.SYS_GETPID)

func sigqueue(pid, sig int, info *[128]byte) error {
	_, _, e := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(sig), uintptr(unsafe.Pointer(info)))
	if e != 0 {
		return e
	}
	return nil
}
