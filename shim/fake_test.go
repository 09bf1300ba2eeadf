// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim/events"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// fakeChild is a process that exits when a test, or SIGKILL, says so.
type fakeChild struct {
	pid    int
	done   chan struct{}
	once   sync.Once
	status int
}

func newFakeChild(pid int) *fakeChild { return &fakeChild{pid: pid, done: make(chan struct{})} }

func (c *fakeChild) exit(status int) {
	c.once.Do(func() { c.status = status; close(c.done) })
}
func (c *fakeChild) Pid() int                    { return c.pid }
func (c *fakeChild) Done() <-chan struct{}       { return c.done }
func (c *fakeChild) Exit() (int, time.Time)      { return c.status, time.Unix(1000, 0) }
func (c *fakeChild) Console() *os.File           { return nil }
func (c *fakeChild) Resize(uint16, uint16) error { return runtime.ErrNoConsole }
func (c *fakeChild) Close() error                { return nil }
func (c *fakeChild) Signal(sig os.Signal) error {
	select {
	case <-c.done:
		return runtime.ErrNotRunning
	default:
	}
	if sig == syscall.SIGKILL {
		c.exit(137)
	}
	return nil
}

// fakeContainer does what the test's hooks say; nil ones succeed.
type fakeContainer struct {
	init                  *fakeChild
	onStart, onPause      func() error
	onExec                func(c *fakeChild) error
	nobody                atomic.Bool // lives any more
	mu                    sync.Mutex
	execs                 []*fakeChild
	frame                 *runtime.Frame
	destroyed, wasResumed bool
}

func (c *fakeContainer) Init() child                                  { return c.init }
func (c *fakeContainer) Start(context.Context) error                  { return call(c.onStart) }
func (c *fakeContainer) Pause() error                                 { return call(c.onPause) }
func (c *fakeContainer) Resume() error                                { c.wasResumed = true; return nil }
func (c *fakeContainer) Update(*specs.LinuxResources) error           { return nil }
func (c *fakeContainer) OOM(context.Context) (<-chan struct{}, error) { return nil, errors.New("none") }
func (c *fakeContainer) Destroy(context.Context) error                { c.destroyed = true; return nil }
func (c *fakeContainer) Runtime() *runtime.Container                  { return nil }

func (c *fakeContainer) Pids() ([]int, error) {
	if c.nobody.Load() {
		return nil, nil
	}
	return []int{c.init.pid}, nil
}

func (c *fakeContainer) Exec(context.Context, string, *specs.Process, runtime.Stdio) (child, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := newFakeChild(1001 + len(c.execs))
	if c.onExec != nil {
		if err := c.onExec(p); err != nil {
			return nil, err
		}
	}
	c.execs = append(c.execs, p)
	return p, nil
}

// Signal is a pid namespace's: with the init dies everything.
func (c *fakeContainer) Signal(sig os.Signal, all bool) error {
	err := c.init.Signal(sig)
	if sig == syscall.SIGKILL {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, p := range c.execs {
			p.exit(137)
		}
	}
	return err
}

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

// eventRecorder writes events down in the order in which they come.
type eventRecorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *eventRecorder) Put(event proto.Message) {
	topic, err := events.Topic(event)
	if err != nil {
		topic = err.Error()
	}
	line := filepath.Base(topic)
	if e, ok := event.(*eventapi.TaskExit); ok {
		line += fmt.Sprintf(" %s %d", e.ID, e.ExitStatus)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

func (r *eventRecorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// fixture is a service with one created task named "web".
type fixture struct {
	t         *testing.T
	s         *service
	events    *eventRecorder
	container *fakeContainer
	bundle    string
}

func newFixture(t *testing.T, m Migrator) *fixture {
	t.Helper()
	f := &fixture{t: t, events: &eventRecorder{}, bundle: t.TempDir(),
		container: &fakeContainer{init: newFakeChild(1000)}}
	config := `{"ociVersion":"1.0.2","linux":{"cgroupsPath":"/ns/old","namespaces":[{"type":"pid"}]}}`
	if err := os.WriteFile(filepath.Join(f.bundle, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	f.s = newService("ns", f.events, m, func() {})
	t.Cleanup(func() { // what a test asks for when the server ends is asked for no more
		f.s.mu.Lock()
		defer f.s.mu.Unlock()
		f.s.ended = true
	})
	f.s.newContainer = func(_ context.Context, o runtime.CreateOptions) (container, error) {
		f.container.frame = o.Frame
		return f.container, nil
	}
	return f
}

func (f *fixture) create(checkpoint string) error {
	_, err := f.s.Create(context.Background(), &taskapi.CreateTaskRequest{ID: "web", Bundle: f.bundle, Checkpoint: checkpoint})
	return err
}

func (f *fixture) start(execID string) error {
	_, err := f.s.Start(context.Background(), &taskapi.StartRequest{ID: "web", ExecID: execID})
	return err
}

func (f *fixture) exec(execID string) error {
	_, err := f.s.Exec(context.Background(), &taskapi.ExecProcessRequest{ID: "web", ExecID: execID,
		Spec: &anypb.Any{Value: []byte(`{"args":["true"],"cwd":"/"}`)}})
	return err
}

func (f *fixture) pause() error {
	_, err := f.s.Pause(context.Background(), &taskapi.PauseRequest{ID: "web"})
	return err
}

func (f *fixture) checkpoint(path string) error {
	_, err := f.s.Checkpoint(context.Background(), &taskapi.CheckpointTaskRequest{ID: "web", Path: path})
	return err
}

func (f *fixture) kill() error {
	_, err := f.s.Kill(context.Background(), &taskapi.KillRequest{ID: "web", Signal: 9})
	return err
}

func (f *fixture) remove() error {
	_, err := f.s.Delete(context.Background(), &taskapi.DeleteRequest{ID: "web"})
	return err
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// waitExit waits for the exit of a process to be published.
func (f *fixture) waitExit(execID string) uint32 {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := f.s.Wait(ctx, &taskapi.WaitRequest{ID: "web", ExecID: execID})
	f.must(err)
	return resp.ExitStatus
}

func (f *fixture) wantStatus(want tasktypes.Status) {
	f.t.Helper()
	resp, err := f.s.State(context.Background(), &taskapi.StateRequest{ID: "web"})
	f.must(err)
	if resp.Status != want {
		f.t.Errorf("state is %s, want %s", resp.Status, want)
	}
}
