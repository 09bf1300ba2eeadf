// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/io-mig/mig/shim/bootstrap"
	"github.com/io-mig/mig/shim/describe"
)

// Files of ours in the bundle, for a `delete` after the shim has died.
const (
	recordFile = describe.BundleFile
	exitFile   = "exit.json"
	rootfsDir  = "rootfs"
)

// bundleRecord is what `delete` and `mig check` have to know.
type bundleRecord = describe.Bundle

func record(bundle string, r bundleRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return bootstrap.WriteFileAtomic(filepath.Join(bundle, recordFile), data)
}

// readRecord errors with os.ErrNotExist if no create got that far.
func readRecord(bundle string) (r bundleRecord, err error) {
	return r, readJSON(filepath.Join(bundle, recordFile), &r)
}

// exitRecord is the init's exit, in the format of runc's shim.
type exitRecord struct {
	Timestamp time.Time
	Pid       int
	Status    int
}

func recordExit(bundle string, e exitRecord) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return bootstrap.WriteFileAtomic(filepath.Join(bundle, exitFile), data)
}

func readExit(bundle string) (e exitRecord, err error) {
	path := filepath.Join(bundle, exitFile)
	if err := readJSON(path, &e); err != nil {
		return exitRecord{}, err
	}
	if e.Pid <= 0 || e.Status < 0 || e.Timestamp.IsZero() {
		return exitRecord{}, fmt.Errorf("%s: no exit: %+v", path, e)
	}
	return e, nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// mountRootfs mounts what the snapshotter has prepared. It happens in Create
// and not at the start: a daemon that restores a container fills the root
// filesystem between the two.
func (t *task) mountRootfs(r *taskapi.CreateTaskRequest, c *creation) error {
	if len(r.Rootfs) == 0 {
		return nil
	}
	t.rootfs = filepath.Join(r.Bundle, rootfsDir)
	if err := os.Mkdir(t.rootfs, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("root filesystem: %w", err)
	}
	mounts := make([]mount.Mount, len(r.Rootfs))
	for i, m := range r.Rootfs {
		mounts[i] = mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	c.add(func() error { return mount.UnmountMounts(mounts, t.rootfs, 0) })
	if err := mount.All(mounts, t.rootfs); err != nil {
		return fmt.Errorf("failed to mount rootfs component: %w", err)
	}
	return nil
}
