// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/runtime"
)

// A client's checkpoint pauses the task first. A pause that is younger than
// clientPause when the request arrives is taken for that; an older one is a
// person's.
const clientPause = 2 * time.Second

// unprepared reads the address of a move that no destination has agreed to yet.
func unprepared(image string) (bool, error) {
	if !address.IsMove(image) {
		return false, nil
	}
	m, err := address.ParseMove(image)
	if err != nil {
		return false, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return !m.Prepared(), nil
}

// startMove has the coordinator move the task: it asks the destination, which
// needs what only containerd knows, and comes back with a checkpoint to the
// address that they have agreed on. The task is held by nobody meanwhile.
func (s *service) startMove(ctx context.Context, t *task, r CheckpointRequest) error {
	if !r.Exit {
		return fmt.Errorf("move %s: a container that is moved does not run on here, ask for its exit (ctr tasks checkpoint --exit): %w", t.id, errdefs.ErrInvalidArgument)
	}
	if err := s.endClientPause(ctx, t); err != nil {
		return err
	}
	if err := s.coordinate(ctx, t.id, r.Image); err != nil {
		return fmt.Errorf("move %s to %s: %w", t.id, r.Image, err)
	}
	return s.awaitExit(t, r.Image)
}

// endClientPause thaws a task that its client has paused a moment ago, so that
// it runs while its destination is made.
func (s *service) endClientPause(ctx context.Context, t *task) error {
	t.mu.Lock()
	paused, since := t.state == statePaused, t.pausedAt
	t.mu.Unlock()
	if !paused {
		return nil
	}
	if time.Since(since) > clientPause {
		return fmt.Errorf("container %s is paused, and its copy would run: resume it first: %w", t.id, errdefs.ErrFailedPrecondition)
	}
	return s.resume(ctx, t)
}

// maxSaid bounds what is kept of the coordinator's output, in bytes.
const maxSaid = 64 << 10

// undoTime is what a coordinator that is told to end may take.
const undoTime = time.Minute

// runCoordinator runs `mig migrate` as a child: the one beside this program, or
// else the one in the PATH.
func (s *service) runCoordinator(ctx context.Context, id, image string) error {
	program, err := coordinator()
	if err != nil {
		return err
	}
	said := &head{left: maxSaid}
	cmd := exec.CommandContext(ctx, program, "migrate", "--json", "--namespace", s.namespace, id, image)
	cmd.Env = append(os.Environ(), "CONTAINERD_ADDRESS="+s.daemon, "CONTAINERD_NAMESPACE="+s.namespace)
	cmd.Dir = "/"
	cmd.Stderr = said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = undoTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	release, err := runtime.Spawn(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	if err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	defer release()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s migrate: %w: %s", program, err, said)
	}
	return nil
}

func coordinator() (string, error) {
	if exe, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(exe), "mig")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("mig")
	if err != nil {
		return "", errors.Join(errors.New("the program mig, which talks to the destination, is neither beside the shim nor in its PATH: install it"), err)
	}
	return path, nil
}

// head keeps the first bytes that are written to it.
type head struct {
	mu   sync.Mutex
	b    strings.Builder
	left int
}

func (t *head) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(p), t.left)
	t.b.Write(p[:n])
	t.left -= n
	return len(p), nil
}

func (t *head) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.b.String())
}
