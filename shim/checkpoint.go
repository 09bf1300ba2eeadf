// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/io-mig/mig/layers/request/address"
)

// exitTimeout bounds how long a checkpoint with exit waits for the processes
// to be gone after the image is complete.
const exitTimeout = 10 * time.Second

// leaveRunning is the annotation (a label in nerdctl, which copies labels) that
// keeps a container running after nerdctl's checkpoint.
const (
	leaveRunning  = "io.mig/leave-running"
	nerdctlPrefix = "nerdctl/"
)

// Checkpoint writes the image of a running or paused task.
func (s *service) Checkpoint(ctx context.Context, r *taskapi.CheckpointTaskRequest) (*emptypb.Empty, error) {
	t, err := s.task(r.ID)
	if err != nil {
		return nil, err
	}
	if s.migrator == nil {
		return nil, fmt.Errorf("checkpoint %s: this shim was built without an engine: %w", t.id, errdefs.ErrNotImplemented)
	}
	opts, err := decodeCheckpoint(r.Options)
	if err != nil {
		return nil, err
	}
	req, err := t.checkpointRequest(r.Path, opts)
	if err != nil {
		return nil, err
	}
	unprepared, err := unprepared(req.Image)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", t.id, err)
	}
	if unprepared {
		return &emptypb.Empty{}, s.startMove(ctx, t, req)
	}
	if address.IsMove(req.Image) {
		if err := s.endClientPause(ctx, t); err != nil {
			return nil, err
		}
	}
	return &emptypb.Empty{}, s.checkpointTask(ctx, t, req)
}

// checkpointTask holds the task for its checkpoint.
func (s *service) checkpointTask(ctx context.Context, t *task, req CheckpointRequest) error {
	end, err := t.begin(ctx, opCheckpoint)
	if err != nil {
		return err
	}
	t.mu.Lock()
	req.Paused = t.state == duringPausedCheckpoint
	req.PausedNow = req.Paused && time.Since(t.pausedAt) <= clientPause
	t.mu.Unlock()
	req.InDoubt = func() { s.inDoubt(t) }
	err = s.checkpoint(ctx, t, req)
	s.outOfDoubt(t, err)
	end(err)
	return err
}

// inDoubt tells clients that the task stays frozen: what does not run for who knows
// how long is paused for them.
func (s *service) inDoubt(t *task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == duringCheckpoint {
		t.state = duringDoubt
		s.events.Put(&eventapi.TaskPaused{ContainerID: t.id})
	}
}

// outOfDoubt is called when the checkpoint has ended, before the transition does.
// With an error the task runs on, unless it is dead.
func (s *service) outOfDoubt(t *task, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != duringDoubt {
		return
	}
	t.state = duringCheckpoint
	if err != nil && !t.init.over() {
		s.events.Put(&eventapi.TaskResumed{ContainerID: t.id})
	}
}

func (s *service) checkpoint(ctx context.Context, t *task, req CheckpointRequest) error {
	undo := func() {}
	if !isURL(req.Image) {
		var err error
		if undo, err = makeDirectory(req.Image); err != nil {
			return fmt.Errorf("checkpoint %s: image directory: %w", t.id, err)
		}
	}
	req.Agent = t.agent
	err := s.migrator.Checkpoint(ctx, req)
	t.wakeApplication(err)
	if err != nil {
		undo()
		return fmt.Errorf("%s: %w", purpose(t.id, req.Image), asAPI(err))
	}
	s.events.Put(&eventapi.TaskCheckpointed{ContainerID: t.id, Checkpoint: req.Image})
	if !req.Exit {
		return nil
	}
	return s.awaitExit(t, req.Image)
}

// purpose is what a request is about, for its error. The options in the address of a
// move are no person's any more.
func purpose(id, image string) string {
	if m, err := address.ParseMove(image); err == nil && address.IsMove(image) {
		return fmt.Sprintf("move %s to %s", id, m.Host)
	}
	return fmt.Sprintf("checkpoint %s to %s", id, image)
}

// awaitExit waits for the end of a task whose state is safe elsewhere.
func (s *service) awaitExit(t *task, image string) error {
	select {
	case <-t.init.done:
		return nil
	case <-time.After(exitTimeout):
		return fmt.Errorf("checkpoint %s: the image %s is complete, but process %d has not exited", t.id, image, t.init.pid())
	}
}

// makeDirectory makes path and what is missing above it. undo removes what it
// made, as far as it is empty: a checkpoint that was refused leaves nothing.
func makeDirectory(path string) (undo func(), err error) {
	var made []string
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); err == nil || p == filepath.Dir(p) {
			break
		}
		made = append(made, p)
	}
	undo = func() {
		for _, p := range made {
			if os.Remove(p) != nil {
				return
			}
		}
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

func (t *task) checkpointRequest(path string, opts *options.CheckpointOptions) (CheckpointRequest, error) {
	req := CheckpointRequest{
		ID: t.id, Namespace: t.namespace, Bundle: t.bundle,
		Container: t.container.Runtime(), Spec: t.spec,
		Image: path, Work: opts.GetWorkPath(), Options: opts,
		Exit: exitsAfterCheckpoint(opts, t.spec.Annotations),
	}
	if req.Image == "" {
		req.Image = opts.GetImagePath()
	}
	if req.Image == "" {
		return req, fmt.Errorf("checkpoint %s: no image path: %w", t.id, errdefs.ErrInvalidArgument)
	}
	return req, nil
}

// exitsAfterCheckpoint decides whether the task ends. nerdctl and CRI send a
// third-party runtime no options. Without them the task runs on, as CRI means
// it; nerdctl's default is the opposite, and its containers are known by the
// annotations that nerdctl leaves.
func exitsAfterCheckpoint(opts *options.CheckpointOptions, annotations map[string]string) bool {
	if opts != nil {
		return opts.Exit
	}
	for key := range annotations {
		if strings.HasPrefix(key, nerdctlPrefix) {
			return annotations[leaveRunning] != "true"
		}
	}
	return false
}

var urlScheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://`)

// isURL tells a medium's URL from a directory.
func isURL(image string) bool { return urlScheme.MatchString(image) }
