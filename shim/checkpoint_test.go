// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/spec/wire"
)

// fakeMigrator runs a test's hooks.
type fakeMigrator struct {
	checkpoint func(CheckpointRequest) error
	run        func() error
	request    RestoreRequest
	closed     int
}

func (m *fakeMigrator) Open() error { return nil }

func (m *fakeMigrator) Checkpoint(_ context.Context, r CheckpointRequest) error {
	return m.checkpoint(r)
}

func (m *fakeMigrator) PrepareRestore(_ context.Context, r RestoreRequest) (Restore, error) {
	m.request = r
	return fakeRestore{m}, nil
}

type fakeRestore struct{ m *fakeMigrator }

func (r fakeRestore) Frame() *runtime.Frame                         { return &runtime.Frame{} }
func (r fakeRestore) Run(context.Context, *runtime.Container) error { return r.m.run() }
func (r fakeRestore) Close() error                                  { r.m.closed++; return nil }

func TestNoMigrator(t *testing.T) {
	f := newFixture(t, nil)
	f.must(f.create(""))
	f.must(f.start(""))
	if err := f.checkpoint("/x"); !errdefs.IsNotImplemented(err) {
		t.Errorf("checkpoint: %v, want not implemented", err)
	}
	g := newFixture(t, nil)
	if err := g.create("/x"); !errdefs.IsNotImplemented(err) {
		t.Errorf("restore: %v, want not implemented", err)
	}
}

// While a checkpoint takes its time everything that containerd asks with a
// deadline is answered, and everything that would disturb it waits or fails.
func TestDuringCheckpoint(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	m := &fakeMigrator{checkpoint: func(CheckpointRequest) error { close(entered); <-release; return nil }}
	f := newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	f.must(f.pause())
	image := filepath.Join(t.TempDir(), "a", "b")
	done := make(chan error)
	go func() { done <- f.checkpoint(image) }()
	<-entered

	f.wantStatus(tasktypes.Status_PAUSED)
	if err := f.remove(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete: %v, want failed precondition", err)
	}
	if _, err := f.s.Pids(context.Background(), &taskapi.PidsRequest{ID: "web"}); err != nil {
		t.Errorf("pids: %v", err)
	}
	if r, err := f.s.Connect(context.Background(), &taskapi.ConnectRequest{ID: "web"}); err != nil || r.TaskPid != 1000 {
		t.Errorf("connect: %v, %v", r, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.s.Resume(ctx, &taskapi.ResumeRequest{ID: "web"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("resume: %v, want the deadline's error", err)
	}

	close(release)
	f.must(<-done)
	f.wantStatus(tasktypes.Status_PAUSED)
	if info, err := os.Stat(image); err != nil || !info.IsDir() {
		t.Errorf("the image's directory was not made: %v", err)
	}
	want := []string{"create", "start", "paused", "checkpointed"}
	if got := f.events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// TestInDoubt: a task that stays frozen behind its move's engine is paused for
// clients, who can kill it and nothing else; when it runs on, or ends, they are told.
func TestInDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		dies   bool
		err    error
		status tasktypes.Status
		events []string
	}{
		"it runs on": {err: errors.New("freed by force"), status: tasktypes.Status_RUNNING, events: []string{"resumed"}},
		"it ends":    {dies: true, status: tasktypes.Status_STOPPED, events: []string{"checkpointed", "exit web 137"}},
		"it is killed": {
			dies: true, err: errors.New("killed before its destination answered"), status: tasktypes.Status_STOPPED,
			events: []string{"exit web 137"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			f := newFixture(t, &fakeMigrator{checkpoint: func(r CheckpointRequest) error {
				r.InDoubt()
				r.InDoubt() // once more with the next answer
				close(entered)
				<-release
				return c.err
			}})
			f.must(f.create(""))
			f.must(f.start(""))
			done := make(chan error, 1)
			image := address.Move{Host: "b.example:7117", Token: wire.NewToken(), Insecure: true}.String()
			go func() { done <- f.moveTo(image, true) }()
			<-entered
			f.wantStatus(tasktypes.Status_PAUSED)
			resume := func() error {
				_, err := f.s.Resume(t.Context(), &taskapi.ResumeRequest{ID: "web"})
				return err
			}
			for what, do := range map[string]func() error{
				"resume": resume, "pause": f.pause, "delete": f.remove,
				"checkpoint": func() error { return f.moveTo(image, true) },
				"exec":       func() error { return f.exec("e") },
			} {
				if err := do(); !errdefs.IsFailedPrecondition(err) {
					t.Errorf("%s: %v, want failed precondition", what, err)
				}
			}
			if c.dies {
				f.must(f.kill())
			}
			close(release)
			if err := <-done; (err == nil) != (c.err == nil) {
				t.Errorf("the move: %v", err)
			}
			if c.dies {
				f.waitExit("")
			}
			f.wantStatus(c.status)
			got := f.events.all()
			slices.Sort(got[min(3, len(got)):]) // an exit may come before the answer
			if want := append([]string{"create", "start", "paused"}, c.events...); !slices.Equal(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
}

// TestDeleteAtTheEndOfACheckpoint: a task that has ended, and whose checkpoint is
// about to, is deleted: containerd that starts meanwhile finds a shim without
// processes and asks for its end, once.
func TestDeleteAtTheEndOfACheckpoint(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	m := &fakeMigrator{checkpoint: func(CheckpointRequest) error { close(entered); <-release; return nil }}
	f := newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	done, deleted := make(chan error, 1), make(chan error, 1)
	go func() { done <- f.checkpoint(filepath.Join(t.TempDir(), "image")) }()
	<-entered
	f.container.init.exit(137)
	go func() { deleted <- f.remove() }()
	select {
	case err := <-deleted:
		// The exit may be known before: then there is nothing to wait for.
		f.must(err)
		close(release)
		<-done
		return
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	<-done
	f.must(<-deleted)
}

// TestDeleteOfTheDying: the same of one whose processes are gone, although nobody has heard
// of the end of its init yet. One that lives is refused at once.
func TestDeleteOfTheDying(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	m := &fakeMigrator{checkpoint: func(CheckpointRequest) error { close(entered); <-release; return nil }}
	f := newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	done, deleted := make(chan error, 1), make(chan error, 1)
	go func() { done <- f.checkpoint(filepath.Join(t.TempDir(), "image")) }()
	<-entered
	if err := f.remove(); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("a running container that is being checkpointed is deleted: %v", err)
	}
	f.container.nobody.Store(true)
	go func() { deleted <- f.remove() }()
	select {
	case err := <-deleted:
		t.Errorf("deleted before its checkpoint has ended: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	f.container.init.exit(137)
	close(release)
	<-done
	f.must(<-deleted)
}

func TestFailedCheckpointChangesNothing(t *testing.T) {
	m := &fakeMigrator{checkpoint: func(CheckpointRequest) error { return errors.New("disk full") }}
	f := newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	if err := f.checkpoint(t.TempDir()); err == nil {
		t.Fatal("no error")
	}
	f.wantStatus(tasktypes.Status_RUNNING)
	f.must(f.pause())
}

func TestKillDuringCheckpoint(t *testing.T) {
	var f *fixture
	m := &fakeMigrator{checkpoint: func(CheckpointRequest) error {
		f.must(f.kill())
		f.waitExit("")
		return errors.New("the container is gone")
	}}
	f = newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	if err := f.checkpoint(t.TempDir()); err == nil {
		t.Fatal("no error")
	}
	f.wantStatus(tasktypes.Status_STOPPED)
	f.must(f.remove())
}

func TestCheckpointWithExit(t *testing.T) {
	var f *fixture
	var request CheckpointRequest
	m := &fakeMigrator{checkpoint: func(r CheckpointRequest) error {
		request = r
		f.container.init.exit(137)
		return nil
	}}
	f = newFixture(t, m)
	f.must(f.create(""))
	f.must(f.start(""))
	opts, err := marshalAny(&options.CheckpointOptions{Exit: true, WorkPath: "/work-path"})
	f.must(err)
	_, err = f.s.Checkpoint(context.Background(), &taskapi.CheckpointTaskRequest{ID: "web", Path: "s3://bucket/x", Options: opts})
	f.must(err)
	f.wantStatus(tasktypes.Status_STOPPED)
	if !request.Exit || request.Paused || request.Image != "s3://bucket/x" || request.Work != "/work-path" {
		t.Errorf("request %+v", request)
	}
	if _, err := os.Stat("s3:"); err == nil {
		t.Error("a directory was made for a URL")
	}
}

func TestRestore(t *testing.T) {
	m := &fakeMigrator{run: func() error { return nil }}
	f := newFixture(t, m)
	f.must(f.create("/image"))
	f.wantStatus(tasktypes.Status_CREATED)
	if f.container.frame == nil {
		t.Error("the container was created without a frame")
	}
	if got := m.request.Spec.Linux.CgroupsPath; got != "/ns/web" {
		t.Errorf("cgroup %s, want the new id's", got)
	}
	if err := f.exec("e1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec in a frame: %v, want failed precondition", err)
	}
	f.must(f.start(""))
	f.wantStatus(tasktypes.Status_RUNNING)
	f.must(f.kill())
	f.waitExit("")
	f.must(f.remove())
	if m.closed != 1 {
		t.Errorf("the restore was closed %d times", m.closed)
	}
	want := []string{"create", "start", "exit web 137", "delete"}
	if got := f.events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// The daemon of 1.6 does not repeat the image of a task's options as its checkpoint.
// Such a directory is nobody's to remove, whatever its name.
func TestRestoreFromOptions(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(os.TempDir(), "ctrd-checkpoint42")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, repeated := range []string{"", dir} {
		m := &fakeMigrator{run: func() error { return nil }}
		f := newFixture(t, m)
		opts, err := marshalAny(&options.Options{CriuImagePath: dir})
		f.must(err)
		_, err = f.s.Create(context.Background(), &taskapi.CreateTaskRequest{ID: "web", Bundle: f.bundle, Checkpoint: repeated, Options: opts})
		f.must(err)
		if f.container.frame == nil || m.request.Image != dir {
			t.Errorf("created from %q with frame %v", m.request.Image, f.container.frame)
		}
		f.must(f.start(""))
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("the image is gone: %v", err)
		}
	}
}

func TestFailedRestoreKillsTheFrame(t *testing.T) {
	m := &fakeMigrator{run: func() error { return errors.New("page 7 of mem.0: checksum") }}
	f := newFixture(t, m)
	f.must(f.create("/image"))
	if err := f.start(""); err == nil {
		t.Fatal("no error")
	}
	f.waitExit("")
	f.wantStatus(tasktypes.Status_STOPPED)
	f.must(f.remove())
	want := []string{"create", "exit web 137", "delete"}
	if got := f.events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if m.closed != 1 {
		t.Errorf("the restore was closed %d times", m.closed)
	}
}

func TestStateDuringRestore(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	m := &fakeMigrator{run: func() error { close(entered); <-release; return nil }}
	f := newFixture(t, m)
	f.must(f.create("/image"))
	done := make(chan error)
	go func() { done <- f.start("") }()
	<-entered
	f.wantStatus(tasktypes.Status_CREATED)
	if err := f.remove(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete: %v, want failed precondition", err)
	}
	close(release)
	f.must(<-done)
}

// The daemon unpacks an image into a temporary directory and forgets it,
// whatever becomes of the restore.
func TestDaemonScratchIsRemoved(t *testing.T) {
	scratch := func() string {
		dir := filepath.Join(os.TempDir(), "ctrd-checkpoint42")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Setenv("TMPDIR", t.TempDir())
	ok := &fakeMigrator{run: func() error { return nil }}

	f := newFixture(t, ok)
	dir := scratch()
	f.must(f.create(dir))
	if _, err := os.Stat(dir); err != nil {
		t.Fatal("removed before the restore")
	}
	f.must(f.start(""))
	if _, err := os.Stat(dir); err == nil {
		t.Error("left behind after a restore")
	}

	f = newFixture(t, ok)
	dir = scratch()
	f.must(f.create(dir))
	f.must(f.remove())
	if _, err := os.Stat(dir); err == nil {
		t.Error("left behind after a delete without a start")
	}

	f = newFixture(t, ok)
	dir = scratch()
	f.s.newContainer = func(context.Context, runtime.CreateOptions) (container, error) {
		return nil, errors.New("no container")
	}
	if err := f.create(dir); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("left behind after a failed create")
	}
	if ok.closed != 3 {
		t.Errorf("%d restores were closed, want 3", ok.closed)
	}
}
