// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim/bootstrap"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// removeTimeout is below the 5 s that containerd gives the action `delete`.
const removeTimeout = 4 * time.Second

// remove is the action `delete`: the shim is dead, or never answered, and what
// it left has to go: processes, cgroup, mounts, socket. What cannot be removed
// is logged and does not keep the rest from being removed.
func remove(f bootstrap.Flags) (*taskapi.DeleteResponse, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	bundle := filepath.Join(filepath.Dir(cwd), f.ID)
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	removeStaleSocket(bundle) // the rest may take all the time there is
	if err := removeContainer(ctx, bundle, f.ID); err != nil {
		slog.Warn("remove container", "container", f.ID, "error", err)
	}
	// The fallback for the time of exit: right after the kill.
	removed := time.Now()
	if err := mount.UnmountRecursive(filepath.Join(bundle, rootfsDir), 0); err != nil {
		slog.Warn("unmount root filesystem", "container", f.ID, "error", err)
	}
	removeStaleSocket(bundle) // which a child of the shim still had that was not executed yet
	if err := bootstrap.RemoveAbandoned(bundle); err != nil {
		slog.Warn("this bundle will not be removed as it should", "container", f.ID, "error", err)
	}
	return lastExit(bundle, removed), nil
}

func removeContainer(ctx context.Context, bundle, id string) error {
	r, err := readRecord(bundle)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no create came so far as to make anything
	}
	if err != nil {
		return err
	}
	removeScratch(r.Scratch)
	c, err := runtime.Load(r.Root, id)
	if errors.Is(err, runtime.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.Signal(syscall.SIGKILL, true); err != nil && !errors.Is(err, runtime.ErrNotRunning) {
		slog.Warn("kill container", "container", id, "error", err)
	}
	if err := c.Destroy(ctx); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	return nil
}

// removeStaleSocket removes the dead shim's socket. In a pod the shim may be
// alive and serve other containers: then it stays.
func removeStaleSocket(bundle string) {
	data, err := os.ReadFile(filepath.Join(bundle, "address"))
	if err != nil {
		return
	}
	path := bootstrap.Path(strings.TrimSpace(string(data)))
	if !filepath.IsAbs(path) || bootstrap.Answers(path) {
		return
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		slog.Warn("remove the dead shim's socket", "error", err)
	}
}

// lastExit is what the shim has recorded or, if it died first, the kill.
func lastExit(bundle string, removed time.Time) *taskapi.DeleteResponse {
	if e, err := readExit(bundle); err == nil {
		return &taskapi.DeleteResponse{Pid: uint32(e.Pid), ExitStatus: uint32(e.Status),
			ExitedAt: timestamppb.New(e.Timestamp)}
	}
	resp := &taskapi.DeleteResponse{ExitStatus: 128 + uint32(syscall.SIGKILL), ExitedAt: timestamppb.New(removed)}
	if data, err := os.ReadFile(filepath.Join(bundle, initPidFile)); err == nil {
		if pid, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32); err == nil {
			resp.Pid = uint32(pid)
		}
	}
	return resp
}
