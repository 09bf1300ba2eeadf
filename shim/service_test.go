// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"github.com/io-mig/mig/runtime"
)

func TestEventOrder(t *testing.T) {
	f := newFixture(t, nil)
	f.must(f.create(""))
	f.must(f.start(""))
	f.must(f.exec("e1"))
	f.must(f.start("e1"))
	f.container.execs[0].exit(3)
	if got := f.waitExit("e1"); got != 3 {
		t.Errorf("exec: exit status %d, want 3", got)
	}
	f.must(f.exec("e2"))
	f.must(f.start("e2"))
	f.must(f.kill())
	if got := f.waitExit(""); got != 137 {
		t.Errorf("exit status %d, want 137", got)
	}
	f.must(f.remove())
	want := []string{"create", "start", "exec-added", "exec-started", "exit e1 3",
		"exec-added", "exec-started", "exit e2 137", "exit web 137", "delete"}
	if got := f.events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q\nwant   %q", got, want)
	}
	if !f.container.destroyed {
		t.Error("the container was not destroyed")
	}
	if _, err := f.s.task("web"); !errdefs.IsNotFound(err) {
		t.Errorf("task after delete: %v, want not found", err)
	}
}

// A program that is over before Start has returned must not exit before it
// has started.
func TestExitDoesNotOvertakeStart(t *testing.T) {
	f := newFixture(t, nil)
	f.container.onStart = func() error {
		f.container.init.exit(0)
		time.Sleep(20 * time.Millisecond) // gives the watcher its chance
		return nil
	}
	f.must(f.create(""))
	f.must(f.start(""))
	f.waitExit("")
	want := []string{"create", "start", "exit web 0"}
	if got := f.events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	f.wantStatus(tasktypes.Status_STOPPED)
}

func TestInitExitWaitsForSessions(t *testing.T) {
	f := newFixture(t, nil)
	f.must(f.create(""))
	f.must(f.start(""))
	f.must(f.exec("e1"))
	f.must(f.start("e1"))
	f.container.init.exit(0)
	time.Sleep(20 * time.Millisecond)
	if got := f.events.all(); slices.Contains(got, "exit web 0") {
		t.Fatalf("the init's exit came before its session's: %q", got)
	}
	// No new session may come either.
	f.must(f.exec("e2"))
	if err := f.start("e2"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start of a session after the init's death: %v, want failed precondition", err)
	}
	f.container.execs[0].exit(1)
	f.waitExit("")
	got := f.events.all()
	if got[len(got)-2] != "exit e1 1" || got[len(got)-1] != "exit web 0" {
		t.Errorf("events %q, want the init's exit last", got)
	}
}

func TestDeleteOfCreatedTask(t *testing.T) {
	f := newFixture(t, nil)
	f.must(f.create(""))
	f.must(f.remove())
	want := []string{"create", "exit web 137", "delete"}
	if got := f.events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestPauseWaitsForStartingSession(t *testing.T) {
	f := newFixture(t, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	f.container.onExec = func(*fakeChild) error { close(entered); <-release; return nil }
	f.must(f.create(""))
	f.must(f.start(""))
	f.must(f.exec("e1"))
	started := make(chan error)
	go func() { started <- f.start("e1") }()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.s.Pause(ctx, &taskapi.PauseRequest{ID: "web"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Pause during the start of a session: %v, want the deadline's error", err)
	}
	f.wantStatus(tasktypes.Status_RUNNING)
	close(release)
	f.must(<-started)
	f.must(f.pause())
	f.wantStatus(tasktypes.Status_PAUSED)
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	f := newFixture(t, nil)
	f.must(os.Remove(f.bundle + "/config.json"))
	if err := f.create(""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("create without a configuration: %v", err)
	}
	if len(f.events.all()) != 0 {
		t.Errorf("events %q, want none", f.events.all())
	}
	if len(f.s.tasks) != 0 {
		t.Error("the id is still reserved")
	}
}

// TestCreateThatIsGivenUp: containerd hangs up in the middle of a create, after
// it has asked for the shim's end. Nothing stays, and the shim ends.
func TestCreateThatIsGivenUp(t *testing.T) {
	f := newFixture(t, nil)
	ctx, hangUp := context.WithCancel(t.Context())
	ended := 0
	f.s.shutdown = func() { ended++ }
	f.s.newContainer = func(context.Context, runtime.CreateOptions) (container, error) {
		if _, err := f.s.Shutdown(ctx, &taskapi.ShutdownRequest{ID: "web"}); err != nil {
			t.Error(err)
		}
		if ended > 0 {
			t.Error("the shim ends while it creates")
		}
		hangUp()
		return f.container, nil
	}
	_, err := f.s.Create(ctx, &taskapi.CreateTaskRequest{ID: "web", Bundle: f.bundle})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if !f.container.destroyed || len(f.s.tasks) != 0 || ended != 1 {
		t.Errorf("destroyed %v, tasks %v, ended %d times", f.container.destroyed, f.s.tasks, ended)
	}
}

// TestDeleteGivesCreateUp: containerd, whose client is gone, asks for the end of a
// task that it creates. It gets an answer when nothing is left, and the shim ends,
// whatever the create was at.
func TestDeleteGivesCreateUp(t *testing.T) {
	f := newFixture(t, nil)
	ended := make(chan struct{})
	f.s.shutdown = func() { close(ended) }
	entered := make(chan struct{})
	f.s.newContainer = func(ctx context.Context, _ runtime.CreateOptions) (container, error) {
		close(entered)
		<-ctx.Done() // and succeeds all the same
		return f.container, nil
	}
	created := make(chan error, 1)
	go func() { created <- f.create("") }()
	<-entered
	if err := f.remove(); !errdefs.IsNotFound(err) {
		t.Errorf("delete during the create: %v, want not found", err)
	}
	if !f.container.destroyed {
		t.Error("the answer came before the container was destroyed")
	}
	if err := <-created; !errors.Is(err, errGivenUp) {
		t.Errorf("create: %v, want %v", err, errGivenUp)
	}
	if _, err := f.s.Shutdown(t.Context(), &taskapi.ShutdownRequest{ID: "web"}); err != nil {
		t.Error(err)
	}
	<-ended
	if got := f.events.all(); len(got) != 0 {
		t.Errorf("events %q, want none", got)
	}
}

// TestDeleteOfCreateThatIsDone: the same when it is too late to give the create up.
func TestDeleteOfCreateThatIsDone(t *testing.T) {
	f := newFixture(t, nil)
	ctx, err := f.s.reserve(t.Context(), "other")
	f.must(err)
	f.must(f.create(""))
	f.must(f.s.keep(ctx, "other"))
	deleted := make(chan error, 1)
	go func() {
		_, err := f.s.Delete(t.Context(), &taskapi.DeleteRequest{ID: "other"})
		deleted <- err
	}()
	select {
	case err := <-deleted:
		t.Fatalf("delete does not wait for the task: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if ctx.Err() != nil {
		t.Error("the create is cancelled after its decision")
	}
	f.s.settle("other", f.s.tasks["web"])
	if err := <-deleted; err != nil {
		t.Errorf("delete of a task that was just created: %v", err)
	}
}

// TestForgottenTask: containerd, which could not delete a task, has removed its
// bundle and asked for the shim's end. The task goes as soon as it has ended, and
// the shim with it.
func TestForgottenTask(t *testing.T) {
	f := newFixture(t, nil)
	ended := make(chan struct{})
	f.s.shutdown = func() { close(ended) }
	f.must(f.create(""))
	f.must(f.start(""))
	if err := f.remove(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a running task: %v", err)
	}
	f.must(os.RemoveAll(f.bundle))
	if _, err := f.s.Shutdown(t.Context(), &taskapi.ShutdownRequest{ID: "web"}); err != nil {
		t.Error(err)
	}
	f.must(f.kill())
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the shim goes on")
	}
	if !f.container.destroyed {
		t.Error("the container was not destroyed")
	}
}

// TestShutdownSparesOthers: a create beside a task that lives ends nothing.
func TestShutdownSparesOthers(t *testing.T) {
	f := newFixture(t, nil)
	f.s.shutdown = func() { t.Error("the shim ends") }
	f.must(f.create(""))
	_, err := f.s.reserve(t.Context(), "other")
	f.must(err)
	if _, err := f.s.Shutdown(t.Context(), &taskapi.ShutdownRequest{ID: "web"}); err != nil {
		t.Error(err)
	}
	f.s.settle("other", nil)
	f.must(f.kill())
	f.waitExit("")
	f.must(f.remove()) // before its bundle: otherwise it would be taken for forgotten
}

func TestSecondCreateIsRefused(t *testing.T) {
	f := newFixture(t, nil)
	f.must(f.create(""))
	if err := f.create(""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second create: %v, want already exists", err)
	}
}

func TestFailedExecStart(t *testing.T) {
	f := newFixture(t, nil)
	f.container.onExec = func(*fakeChild) error { return errors.New(`exec: "x": executable file not found in $PATH`) }
	f.must(f.create(""))
	f.must(f.start(""))
	f.must(f.exec("e1"))
	if err := f.start("e1"); err == nil {
		t.Fatal("start of a session without a program succeeded")
	}
	if got := f.waitExit("e1"); got != startFailed {
		t.Errorf("exit status %d, want %d", got, startFailed)
	}
	if _, err := f.s.Delete(context.Background(), &taskapi.DeleteRequest{ID: "web", ExecID: "e1"}); err != nil {
		t.Error(err)
	}
}
