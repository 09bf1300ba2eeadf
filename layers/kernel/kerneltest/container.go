// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// Container is a running init in its own pid and mount namespaces and its own
// freezer cgroup. It ends with the test.
type Container struct {
	// Pid of its init, as the test sees it.
	Pid int
	// Freezer is its cgroup, Stdio the pipes that it was given.
	Freezer *target.Freezer
	Stdio   []target.StdioFile

	t       testing.TB
	program *Program
	// generation counts the imports behind it.
	generation int
	cmd        *exec.Cmd
	gate       *os.File // the init tells by a byte that it is there; one lets it execute its program
	in         *os.File
	out        *os.File
	lines      *bufio.Reader
	errors     output
	rest       string // of the output, after Stop
	once       sync.Once
}

// firstID is what the ids of a user namespace begin with outside of it.
const firstID = 200000

// output collects what a program writes to its standard error.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Start builds and runs a program and waits until it is ready.
func Start(t testing.TB, p Program) *Container {
	t.Helper()
	NeedRoot(t)
	path := p.build(t)
	c := newContainer(t, &p, nil, p.UID, p.GID, append([]string{path}, p.Args...))
	if err := c.letGo(); err != nil {
		t.Fatal(err)
	}
	if s := c.Line(); s != "ready" {
		t.Fatalf("%s said %q instead of ready\n%s", p.Source, s, c.errors.String())
	}
	return c
}

// newContainer starts an init that waits at its gate. The descriptors of files
// are 3 and following in it.
func newContainer(t testing.TB, p *Program, files []*os.File, uid, gid int, args []string) *Container {
	t.Helper()
	c := &Container{t: t, program: p}
	dir, freezer := newCgroup(t)
	c.Freezer = freezer
	var theirs [3]*os.File
	theirs[0], c.in = c.pipe()
	c.out, theirs[1] = c.pipe()
	stderr, w := c.pipe()
	theirs[2] = w
	gate := c.makeGate()
	for _, f := range theirs {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		c.Stdio = append(c.Stdio, target.StdioFile{Dev: st.Dev, Ino: st.Ino})
	}
	filter := 0
	if p.Filtered {
		filter = 1
	}
	c.cmd = exec.Command("/proc/self/exe", args...)
	c.cmd.Env = []string{fmt.Sprintf("%s=%d %d %d %d", roleEnv, 3+len(files), uid, gid, filter), tmpfsEnv + "=" + p.Tmpfs}
	if p.Devpts {
		c.cmd.Env = append(c.cmd.Env, devptsEnv+"=1")
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	c.cmd.ExtraFiles = append(append([]*os.File{}, files...), gate)
	c.cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if p.IPC {
		c.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWIPC
	}
	if p.UTS {
		c.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUTS
	}
	if p.UserNamespace {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: 65536}}
		c.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.cmd.SysProcAttr.UidMappings, c.cmd.SysProcAttr.GidMappings = ids, ids
		c.cmd.SysProcAttr.GidMappingsEnableSetgroups = true
		c.cmd.SysProcAttr.Credential = &syscall.Credential{} // its root
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.Pid = c.cmd.Process.Pid
	t.Cleanup(c.Stop)
	for _, f := range append(theirs[:], gate) {
		f.Close()
	}
	c.lines = bufio.NewReader(c.out)
	go func() { _, _ = bufio.NewReader(stderr).WriteTo(&c.errors); stderr.Close() }()
	// When Start returns, the init's exec is not over: whoever seizes it at once is
	// told of that exec, too (PTRACE_EVENT_EXEC), and takes it for its program's.
	if _, err := io.ReadFull(c.gate, make([]byte, 1)); err != nil {
		t.Fatalf("the container's init does not come up: %v\n%s", err, c.errors.String())
	}
	if err := joinCgroup(dir, c.Pid); err != nil {
		t.Fatal(err)
	}
	return c
}

// makeGate makes both ends of the gate, and returns the init's.
func (c *Container) makeGate() *os.File {
	c.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	c.gate = os.NewFile(uintptr(fds[0]), "gate")
	return os.NewFile(uintptr(fds[1]), "gate of the init")
}

func (c *Container) pipe() (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	return r, w
}

func (c *Container) letGo() error {
	_, err := c.gate.Write([]byte{1})
	return errors.Join(err, c.gate.Close())
}

// Line returns the program's next line of output; its death or silence ends
// the test.
func (c *Container) Line() string {
	c.t.Helper()
	_ = c.out.SetReadDeadline(time.Now().Add(patience))
	s, err := c.lines.ReadString('\n')
	if err != nil {
		c.t.Fatalf("generation %d: no answer from the program, pid %d: %v\n%s\n%s", c.generation, c.Pid, err, c.errors.String(), c.describe())
	}
	return strings.TrimSpace(s)
}

// describe is what a person wants to know about a program that does not answer.
func (c *Container) describe() string {
	var b strings.Builder
	for _, name := range []string{"status", "syscall", "wchan", "maps"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", c.Pid, name))
		fmt.Fprintf(&b, "%s: %s %v\n", name, text, err)
	}
	return b.String()
}

// Send writes to the program's standard input.
func (c *Container) Send(s string) {
	c.t.Helper()
	if _, err := c.in.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

// Verify asks the program to look at itself and returns what it says behind
// OK; anything else fails the test.
func (c *Container) Verify() string {
	c.t.Helper()
	c.Send("v")
	s := c.Line()
	rest, ok := strings.CutPrefix(s, "OK")
	if !ok {
		c.t.Fatalf("generation %d: the program says: %s", c.generation, s)
	}
	return strings.TrimSpace(rest)
}

// Stop kills the container and waits for its end. It may be called twice.
func (c *Container) Stop() {
	c.once.Do(func() {
		defer c.drain()
		_ = c.cmd.Process.Kill()
		_ = c.Freezer.Thaw()
		done := make(chan struct{})
		go func() { _ = c.cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			c.t.Errorf("pid %d does not die\n%s", c.Pid, c.describe())
		}
		c.in.Close()
		c.gate.Close()
	})
}

// drain keeps what the program has said and nobody has read.
func (c *Container) drain() {
	_ = c.out.SetReadDeadline(time.Now().Add(patience))
	text, _ := io.ReadAll(c.lines)
	c.rest = string(text)
	c.out.Close()
}

// Rest are the lines that a container that was stopped had said before.
func (c *Container) Rest() []string { return strings.Fields(c.rest) }
