// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/runtime"
)

// prepareRestore turns a create with a checkpoint, or of a container that is
// moved here, into one of a frame. named is the image that the client's options
// name: a daemon of containerd 2 repeats it as the checkpoint, one of 1.6 only
// for a runtime whose name is runc's.
func (s *service) prepareRestore(ctx context.Context, t *task, r *taskapi.CreateTaskRequest, named string, c *creation) error {
	if r.Checkpoint == "" {
		r.Checkpoint = named
	}
	image, err := imageOf(r.Checkpoint, t.spec.Annotations)
	if err != nil {
		return err
	}
	if image == "" {
		return nil
	}
	if r.Checkpoint != named && isDaemonScratch(r.Checkpoint) {
		t.scratch = r.Checkpoint
		c.add(func() error { removeScratch(r.Checkpoint); return nil })
	}
	if s.migrator == nil {
		return fmt.Errorf("restore %s: this shim was built without an engine: %w", r.ID, errdefs.ErrNotImplemented)
	}
	// ctr of containerd 1.6 restores every container without a terminal. One
	// whose spec says terminal gets it nevertheless: a client may attach to it.
	if t.spec.Process != nil && t.spec.Process.Terminal {
		t.init.uris.Terminal = true
	}
	if t.spec.Linux != nil {
		t.spec.Linux.CgroupsPath = ownCgroup(t.spec.Linux.CgroupsPath, s.namespace, r.ID)
	}
	restore, err := s.migrator.PrepareRestore(ctx, RestoreRequest{
		ID: r.ID, Namespace: s.namespace, Bundle: r.Bundle, Spec: t.spec, Image: image,
	})
	if err != nil {
		return fmt.Errorf("restore %s from %s: %w", r.ID, image, err)
	}
	c.add(restore.Close)
	t.restore, t.state = restore, stateFrame
	return nil
}

// runRestore fills the frame. A restore is tried once: after an error the frame
// is killed, and the exit that follows leaves the task stopped.
func (t *task) runRestore(ctx context.Context) error {
	t.mu.Lock()
	restore := t.restore
	t.mu.Unlock()
	err := restore.Run(ctx, t.container.Runtime())
	if err != nil {
		err = asAPI(err)
		if c := t.container.Runtime(); c != nil && c.KilledForMemory() {
			err = fmt.Errorf("%s: %w", job.WantOfMemory, err)
		}
		err = fmt.Errorf("restore failed: %w", err)
		if killErr := t.container.Signal(syscall.SIGKILL, true); killErr != nil && !errors.Is(killErr, runtime.ErrNotRunning) {
			slog.Error("kill the frame of a failed restore", "container", t.id, "error", killErr)
		}
	}
	t.closeRestore()
	return err
}

// restoring tells whether Start has a frame to fill.
func (t *task) restoring() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.restore != nil
}

// closeRestore frees the restore and the daemon's copy of the image, once.
func (t *task) closeRestore() {
	t.mu.Lock()
	restore, scratch := t.restore, t.scratch
	t.restore, t.scratch = nil, ""
	t.mu.Unlock()
	if restore != nil {
		if err := restore.Close(); err != nil {
			slog.Error("close restore", "container", t.id, "error", err)
		}
	}
	removeScratch(scratch)
}

// scratchName is what os.MkdirTemp makes of the daemon's pattern
// (plugins/services/tasks/local.go).
var scratchName = regexp.MustCompile(`^ctrd-checkpoint\d+$`)

// isDaemonScratch tells whether path is the temporary directory into which the
// daemon has unpacked the image. The daemon leaves it to nobody, and an image
// is as large as the container's memory. Nothing else must match: a directory
// that a person has named is that person's.
func isDaemonScratch(path string) bool {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || !scratchName.MatchString(filepath.Base(path)) {
		return false
	}
	parent := filepath.Dir(path)
	if parent != os.TempDir() && parent != os.Getenv("XDG_RUNTIME_DIR") {
		return false
	}
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

func removeScratch(path string) {
	if path == "" || !isDaemonScratch(path) {
		return
	}
	if err := os.RemoveAll(path); err != nil {
		slog.Warn("remove the daemon's copy of the image", "error", err)
	}
}
