// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/itest"
)

// host is a private containerd with a client.
type host struct {
	*itest.Host
	client *client.Client
}

func startHost(t *testing.T, version daemon.Version) *host {
	t.Helper()
	return startHostOf(t, daemon.Config{Version: version})
}

func startHostOf(t *testing.T, config daemon.Config) *host {
	t.Helper()
	h := &host{Host: itest.Start(t, config, victimImage(t))}
	c, err := client.New(h.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	h.client = c
	return h
}

// victim is one container that runs testdata/victim.c.
type victim struct {
	t    *testing.T
	host *host
	id   string
	pid  int // of its init, in our pid namespace
}

// run starts a victim with so many megabytes of memory.
func (h *host) run(t *testing.T, id string, megabytes int, mode string, opts ...oci.SpecOpts) *victim {
	t.Helper()
	v := h.create(t, id, megabytes, mode, "", opts...)
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	v.mustLive("after its start")
	return v
}

// create makes a container with a task, of an image directory if there is one.
func (h *host) create(t *testing.T, id string, megabytes int, mode, image string, opts ...oci.SpecOpts) *victim {
	t.Helper()
	v := &victim{t: t, host: h, id: id}
	if err := v.make(megabytes, mode, image, opts...); err != nil {
		t.Fatal(err)
	}
	return v
}

// make is create without an opinion about errors.
func (v *victim) make(megabytes int, mode, image string, opts ...oci.SpecOpts) error {
	ctx := namespaces.WithNamespace(v.t.Context(), v.host.Namespace)
	img, err := v.host.client.GetImage(ctx, "mig.test/victim:1")
	if err != nil {
		return err
	}
	v.t.Cleanup(func() { v.host.Remove(v.id) })
	args := []string{"/victim", strconv.Itoa(megabytes)}
	if mode != "" {
		args = append(args, mode)
	}
	all := append([]oci.SpecOpts{oci.WithImageConfig(img), oci.WithProcessArgs(args...)}, opts...)
	c, err := v.host.client.NewContainer(ctx, v.id, client.WithSnapshotter(v.host.Snapshotter), client.WithImage(img),
		client.WithNewSnapshot(v.id, img), client.WithRuntime(itest.Mig, nil), client.WithNewSpec(all...))
	if err != nil {
		return err
	}
	return v.task(c, image)
}

// task makes the container's task.
func (v *victim) task(c client.Container, image string) error {
	ctx := namespaces.WithNamespace(v.t.Context(), v.host.Namespace)
	var opts []client.NewTaskOpts
	if image != "" {
		opts = append(opts, withImage(image))
	}
	task, err := c.NewTask(ctx, cio.NullIO, opts...)
	if err != nil {
		return err
	}
	v.pid = int(task.Pid())
	return nil
}

func (v *victim) start() error {
	ctx := namespaces.WithNamespace(v.t.Context(), v.host.Namespace)
	c, err := v.host.client.LoadContainer(ctx, v.id)
	if err != nil {
		return err
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		return err
	}
	err = task.Start(ctx)
	v.pid = int(task.Pid())
	return err
}

// restore makes a container of an image directory and runs it.
func (h *host) restore(t *testing.T, id, dir string, opts ...oci.SpecOpts) (*victim, error) {
	t.Helper()
	v := &victim{t: t, host: h, id: id}
	if err := v.make(4, "", dir, opts...); err != nil {
		return v, err
	}
	return v, v.start()
}

// beat is the victim's own account of itself.
type beat struct {
	beats, errors uint64
	longest       time.Duration // between two beats since the last reset
}

func (v *victim) root(name string) string {
	return filepath.Join("/proc", strconv.Itoa(v.pid), "root", name)
}

func (v *victim) beat() (beat, error) {
	var b beat
	var µs int64
	var pid int
	var ok string
	var err error
	for range 10 { // a reader may meet a writer half-way
		var text []byte
		if text, err = os.ReadFile(v.root("beat")); err != nil {
			return b, err
		}
		if _, err = fmt.Sscanf(string(text), "%d %d %d %d %s", &b.beats, &b.errors, &µs, &pid, &ok); err == nil && ok == "ok" {
			b.longest = time.Duration(µs) * time.Microsecond
			return b, nil
		}
	}
	return b, fmt.Errorf("/beat cannot be read: %w", err)
}

// lives waits until the victim has beaten on and returns its account, or why
// it is harmed.
func (v *victim) lives() (beat, error) {
	var first, b beat
	var err error
	end := time.Now().Add(10 * time.Second)
	for begun := false; time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if b, err = v.beat(); err != nil {
			continue
		}
		if !begun {
			first, begun = b, true
		}
		if b.errors > 0 {
			wrong, _ := os.ReadFile(v.root("wrong"))
			return b, fmt.Errorf("%s found itself harmed %d times:\n%s", v.id, b.errors, wrong)
		}
		if b.beats >= first.beats+16 {
			return b, nil
		}
	}
	stack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.pid))
	return b, errors.Join(fmt.Errorf("%s does not beat any more: %d beats first, %d now\n%s", v.id, first.beats, b.beats, firstLines(string(stack), 8)), err)
}

func firstLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[:min(n, len(lines))], "")
}

func (v *victim) mustLive(when string) beat {
	v.t.Helper()
	b, err := v.lives()
	if err != nil {
		v.t.Fatalf("%s: %v", when, err)
	}
	return b
}

// reset begins a new measure of the longest silence.
func (v *victim) reset() {
	v.t.Helper()
	if err := os.Remove(v.root("measure")); err != nil {
		v.t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(v.root("measure")); err == nil {
			return
		}
		if time.Now().After(end) {
			v.t.Fatal("the victim does not take a new measure")
		}
	}
}

// checkpoint is what a user of ctr does.
func (v *victim) checkpoint(dir string, flags ...string) daemon.Result {
	v.t.Helper()
	args := append([]string{"tasks", "checkpoint", "--image-path", dir}, flags...)
	return v.host.checkpoint(v.t, append(args, v.id)...)
}

// checkpoint runs ctr and removes the image that it makes, whose name is unique
// for a second only.
func (h *host) checkpoint(t *testing.T, args ...string) daemon.Result {
	t.Helper()
	result := h.Ctr(t.Context(), args...)
	if result.Code == 0 {
		for name := range strings.FieldsSeq(h.Must(t, "images", "ls", "-q").Stdout) {
			if strings.HasPrefix(name, "containerd.io/checkpoint/") {
				h.Must(t, "images", "rm", name)
			}
		}
	}
	return result
}

// status is what ctr says of a task, "none" without one.
func (v *victim) status() string {
	v.t.Helper()
	for line := range strings.Lines(v.host.Must(v.t, "tasks", "ls").Stdout) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == v.id {
			return fields[2]
		}
	}
	return "none"
}

func (v *victim) await(want ...string) {
	v.t.Helper()
	var got string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		got = v.status()
		for _, w := range want {
			if got == w {
				return
			}
		}
	}
	v.t.Fatalf("%s is %s, want %v", v.id, got, want)
}

// runsOn asserts that nothing has happened to the victim.
func (v *victim) runsOn(after string) {
	v.t.Helper()
	if got := v.status(); got != "RUNNING" {
		v.t.Errorf("after %s it is %s", after, got)
	}
	v.mustLive("after " + after)
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// remove kills and deletes the victim, whose pid means nothing afterwards.
func (v *victim) remove() {
	v.t.Helper()
	v.host.Remove(v.id)
	v.pid = 0
}

// gone asserts that the task is over and can be removed, with its container,
// and that its process is not there any more.
func (v *victim) gone(after string) {
	v.t.Helper()
	v.await("STOPPED", "none")
	if v.pid > 0 {
		eventually(v.t, fmt.Sprintf("the end of process %d after %s", v.pid, after), func() bool { return !alive(v.pid) })
	}
	if v.status() != "none" {
		v.host.Must(v.t, "tasks", "delete", v.id)
	}
	v.host.Must(v.t, "containers", "delete", v.id)
	v.pid = 0
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// procStatus is a field of /proc/PID/status.
func (v *victim) procStatus(field string) string {
	v.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.pid))
	if err != nil {
		v.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); key == field {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	v.t.Fatalf("/proc/%d/status has no %s", v.pid, field)
	return ""
}

// empty asserts that a directory holds nothing that a failed checkpoint wrote.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left in the image directory", e.Name())
	}
}

// kill kills one process of ours by its pid.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Error(err)
	}
}

// caps gives a process exactly these capabilities.
func caps(names ...string) oci.SpecOpts {
	return func(_ ctx, _ oci.Client, _ *containerInfo, s *specs.Spec) error {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
		return nil
	}
}
