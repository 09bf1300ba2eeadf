// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// callTimeout bounds one ctr command; the machine may be busy.
const callTimeout = 30 * time.Second

// daemon is a private containerd.
type daemon struct {
	t               *testing.T
	dir             string
	containerd, ctr string
	namespace       string
	// warnings is what the last ctr command has logged.
	warnings string
	path     string   // PATH of the daemon, with the shim in front
	under    []string // a command that executes its arguments, nil for none
	cmd      *exec.Cmd
}

// start runs the daemon and waits until it answers.
func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	args := append(slices.Clone(d.under), d.containerd, "--config", d.file("config.toml"))
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Env = append(os.Environ(), "PATH="+d.path, "TMPDIR="+d.file("tmp"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// Shims live in the daemon's group until they make their own.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.eventually("containerd answers", func() bool {
		out, _ := d.try("version")
		return strings.Contains(out, "Server:")
	})
}

// stop ends the daemon; its shims and containers live on.
func (d *daemon) stop() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
}

func (d *daemon) file(name string) string { return filepath.Join(d.dir, name) }

// bundle is the bundle of a container.
func (d *daemon) bundle(id string) string {
	return d.file("state/io.containerd.runtime.v2.task/" + d.namespace + "/" + id)
}

// command is a ctr command on this daemon.
func (d *daemon) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"-a", d.file("sock"), "-n", d.namespace}, args...)
	cmd := exec.CommandContext(ctx, d.ctr, args...)
	cmd.WaitDelay = time.Second
	return cmd
}

// try runs ctr and returns what it printed and its exit status.
func (d *daemon) try(args ...string) (string, int) {
	d.t.Helper()
	return d.tryUntil("", func(string) bool { return true }, args...)
}

// tryUntil is try with a stdin whose end comes only when ctr has printed what
// seen wants. A program whose output counts has to wait for that: at the end of
// a process containerd's client closes the FIFOs (task.Delete calls io.Cancel)
// whether it has read them or not, so that a busy machine loses the last output
// of any runtime.
func (d *daemon) tryUntil(stdin string, seen func(out string) bool, args ...string) (string, int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	cmd := d.command(ctx, args...)
	r, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.WriteString(stdin); err != nil {
		d.t.Fatal(err)
	}
	p := &printed{seen: seen, stdin: w}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, stream{p, &p.out}, stream{p, &p.logged}
	p.look() // nothing may be wanted
	err = cmd.Run()
	d.warnings = p.logged.String()
	out := p.text()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return out, exit.ExitCode()
	default:
		d.t.Fatalf("ctr %s: %v\n%s\n%s", strings.Join(args, " "), err, out, d.tail())
		return "", 0
	}
}

// printed is what a ctr has printed. It closes the ctr's stdin.
type printed struct {
	mu          sync.Mutex
	out, logged bytes.Buffer
	seen        func(string) bool
	stdin       io.Closer // nil once it is closed
}

// text is all but what newer versions of ctr say on stderr about the machine's
// cgroups.
func (p *printed) text() string {
	out := p.out.String()
	for line := range strings.Lines(p.logged.String()) {
		if !strings.HasPrefix(line, "time=") {
			out += line
		}
	}
	return out
}

func (p *printed) look() {
	if p.stdin != nil && p.seen(p.text()) {
		p.stdin.Close()
		p.stdin = nil
	}
}

// stream is one of the two that ctr prints on.
type stream struct {
	p  *printed
	to *bytes.Buffer
}

func (s stream) Write(b []byte) (int, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	n, err := s.to.Write(b)
	s.p.look()
	return n, err
}

// must runs ctr and fails the test if ctr fails.
func (d *daemon) must(args ...string) string {
	d.t.Helper()
	out, code := d.try(args...)
	if code != 0 {
		d.t.Fatalf("ctr %s: exit status %d\n%s\n%s", strings.Join(args, " "), code, out, d.tail())
	}
	return out
}

// runArgs is `run` with the flags every container here needs.
func (d *daemon) runArgs(flags []string, id string, program ...string) []string {
	args := append([]string{"run", "--runtime", "io.mig.v1", "--env", "PATH=/bin", "--rootfs"}, flags...)
	return append(append(args, d.file("rootfs"), id), program...)
}

// detached starts a container that runs program.
func (d *daemon) detached(id string, flags []string, program ...string) {
	d.t.Helper()
	d.must(d.runArgs(append([]string{"-d"}, flags...), id, program...)...)
}

// remove kills and deletes a container.
func (d *daemon) remove(id string) {
	d.t.Helper()
	d.try("task", "kill", "-s", "9", id)
	d.eventually(id+" is removed", func() bool {
		d.try("task", "rm", "-f", id)
		_, code := d.try("container", "rm", id)
		return code == 0
	})
}

// status is the STATUS column of `task ls`, empty if there is no task.
func (d *daemon) status(id string) string {
	d.t.Helper()
	for line := range strings.Lines(d.must("task", "ls")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	return ""
}

// pid is the init's, as the daemon tells it.
func (d *daemon) pid(id string) string {
	d.t.Helper()
	for line := range strings.Lines(d.must("task", "ls")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[1]
		}
	}
	d.t.Fatalf("no task %s", id)
	return ""
}

func (d *daemon) eventually(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(callTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	d.t.Fatalf("not within %v: %s\n%s", callTimeout, what, d.tail())
}

// tail is the end of the daemon's log, for messages.
func (d *daemon) tail() string {
	data, _ := os.ReadFile(d.file("log"))
	return fmt.Sprintf("--- end of containerd's log\n%s", data[max(0, len(data)-1500):])
}
