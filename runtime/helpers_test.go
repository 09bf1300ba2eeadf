// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const busybox = "/bin/busybox"

// sandbox is where a test's containers live: a bundle with a busybox root
// filesystem, and a state root.
type sandbox struct {
	t      testing.TB
	bundle string
	root   string
}

func newSandbox(t testing.TB) *sandbox {
	t.Helper()
	dir := t.TempDir()
	// User namespaces have to pass through t.TempDir's private parent.
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	s := &sandbox{t: t, bundle: filepath.Join(dir, "bundle"), root: filepath.Join(dir, "state")}
	rootfs := filepath.Join(s.bundle, "rootfs")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root"} {
		must(t, os.MkdirAll(filepath.Join(rootfs, d), 0o755))
	}
	must(t, os.Chmod(filepath.Join(rootfs, "tmp"), 0o1777))
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Skip("needs busybox-static:", err)
	}
	must(t, os.WriteFile(filepath.Join(rootfs, "bin/busybox"), data, 0o755))
	for _, applet := range strings.Fields("sh cat echo sleep id grep ls ps dd head kill stat mkdir hostname tty stty true false env pwd mount wc date nproc chmod sed awk") {
		must(t, os.Symlink("busybox", filepath.Join(rootfs, "bin", applet)))
	}
	return s
}

// spec runs args in a container with all the namespaces runc's example has.
func (s *sandbox) spec(id string, args ...string) *specs.Spec {
	spec := specconv.Example()
	spec.Root = &specs.Root{Path: "rootfs"} // relative to the bundle
	spec.Process.Terminal = false
	spec.Process.Args = args
	spec.Process.Env = []string{"PATH=/bin"}
	spec.Linux.CgroupsPath = filepath.Join(testCgroup, id)
	return spec
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func (s *sandbox) options(id string, spec *specs.Spec) CreateOptions {
	return CreateOptions{ID: id, Bundle: s.bundle, Root: s.root, Spec: spec}
}

// create makes the container and destroys it when the test ends, where it also
// looks for what should not be left.
func (s *sandbox) create(o CreateOptions) *Container {
	s.t.Helper()
	c, err := Create(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.destroy(c) })
	return c
}

func (s *sandbox) destroy(c *Container) {
	s.t.Helper()
	// Not the test's context: that one has ended in a cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Destroy(ctx); err != nil {
		s.t.Error("destroy:", err)
	}
	for name, dir := range c.CgroupPaths() {
		if _, err := os.Stat(dir); err == nil {
			s.t.Errorf("cgroup %s %s is left", name, dir)
		}
	}
	if _, err := os.Stat(c.StateDir()); err == nil {
		s.t.Errorf("state directory %s is left", c.StateDir())
	}
	waitDone(s.t, c.Init())
}

// start creates and starts.
func (s *sandbox) start(o CreateOptions) *Container {
	s.t.Helper()
	c := s.create(o)
	must(s.t, c.Start(s.t.Context()))
	return c
}

// run runs a container to its end and returns its output and exit status.
func (s *sandbox) run(id string, spec *specs.Spec) (string, int) {
	s.t.Helper()
	out := newOutput(s.t)
	o := s.options(id, spec)
	o.Stdio = Stdio{Stdout: out.w, Stderr: out.w}
	c := s.start(o)
	status := waitDone(s.t, c.Init())
	return out.String(), status
}

// exec runs a process in a running container to its end.
func (s *sandbox) exec(c *Container, p *specs.Process) (string, int) {
	s.t.Helper()
	out := newOutput(s.t)
	proc, err := c.Exec(s.t.Context(), "test", p, Stdio{Stdout: out.w, Stderr: out.w})
	if err != nil {
		s.t.Fatal(err)
	}
	status := waitDone(s.t, proc)
	return out.String(), status
}

// process is the spec's, with other arguments.
func process(spec *specs.Spec, args ...string) *specs.Process {
	p := copyProcess(spec.Process)
	p.Args = args
	return p
}

func waitDone(t testing.TB, p *Process) int {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatalf("pid %d has not exited in 20 s", p.Pid())
	}
	status, at := p.Exit()
	if time.Since(at) > time.Minute {
		t.Errorf("pid %d exited at %v?", p.Pid(), at)
	}
	return status
}

// output collects what is written to w; String closes w and waits for the end.
type output struct {
	w    *os.File
	buf  bytes.Buffer
	done chan struct{}
	once sync.Once
}

func newOutput(t testing.TB) *output {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	o := &output{w: w, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		_, _ = io.Copy(&o.buf, r)
		r.Close()
	}()
	t.Cleanup(func() { o.once.Do(func() { w.Close() }) })
	return o
}

func (o *output) String() string {
	o.once.Do(func() { o.w.Close() })
	<-o.done
	return o.buf.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that has no event to wait for.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in 10 s:", what)
		}
	}
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// awaitProgram waits until the process has executed busybox.
func awaitProgram(t testing.TB, p *Process) {
	t.Helper()
	eventually(t, "the program runs", func() bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Pid()))
		return strings.HasSuffix(exe, "/busybox")
	})
}
