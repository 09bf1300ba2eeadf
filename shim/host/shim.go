// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/io-mig/mig/shim/bootstrap"
)

// DefaultState is containerd's state directory.
const DefaultState = "/run/containerd"

// tasksDir is where containerd keeps the bundles of running tasks below its
// state directory, DIR/NAMESPACE/ID (core/runtime/v2, since 1.2).
const tasksDir = "io.containerd.runtime.v2.task"

// Shim is a connection to the shim of one container. Its end cancels what was
// asked over it.
type Shim struct {
	id     string
	conn   net.Conn
	client *ttrpc.Client
}

// dialTimeout bounds the connection to a shim, which is on this host.
const dialTimeout = 5 * time.Second

// Shim connects to the shim of a container, past containerd: what is asked of it
// ends with this process, and nobody pauses the container for it.
func (h *Host) Shim(state string, s *Source) (*Shim, error) {
	id := s.Container.ID
	bundle, err := bundleOf(state, s)
	if err != nil {
		return nil, err
	}
	address, err := shimAddress(bundle)
	if err != nil {
		return nil, fmt.Errorf("address of the shim of container %s: %w", id, err)
	}
	conn, err := net.DialTimeout("unix", bootstrap.Path(address), dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("connect to the shim of container %s: %w", id, err)
	}
	return &Shim{id: id, conn: conn, client: ttrpc.NewClient(conn)}, nil
}

// Close ends the connection.
func (s *Shim) Close() error { return s.client.Close() }

// Bundle is the OCI bundle of a running container.
func (h *Host) Bundle(state string, s *Source) (string, error) { return bundleOf(state, s) }

// bundleOf looks below the state directory and, where the container is of
// another containerd, beside the working directory of its shim.
func bundleOf(state string, s *Source) (string, error) {
	dirs := []string{filepath.Join(state, tasksDir, s.Namespace)}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", parentOf(s.Pid))); err == nil && filepath.Base(filepath.Dir(filepath.Dir(cwd))) == tasksDir {
		dirs = append([]string{filepath.Dir(cwd)}, dirs...)
	}
	for _, dir := range dirs {
		bundle := filepath.Join(dir, s.Container.ID)
		if _, err := os.Stat(bundle); err == nil {
			return bundle, nil
		}
	}
	return "", fmt.Errorf("there is no bundle of container %s in %s (--state names containerd's state directory)", s.Container.ID, strings.Join(dirs, " or "))
}

// parentOf is the shim, to which the container's first process is a child
// (field 4 of proc_pid_stat(5)); 0 if it cannot be told.
func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// shimAddress reads what containerd has written down: bootstrap.json since 1.7,
// address before.
func shimAddress(bundle string) (string, error) {
	b, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err == nil {
		var p struct{ Address string }
		if err := json.Unmarshal(b, &p); err != nil {
			return "", fmt.Errorf("%s/bootstrap.json: %w", bundle, err)
		}
		return p.Address, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	b, err = os.ReadFile(filepath.Join(bundle, "address"))
	return string(b), err
}

// Checkpoint has the shim write the image of its container into a directory, an
// absolute path, with the container running on or ended. It does not end early: the
// outcome decides whether the container lives. The end of the connection (Close, or
// the death of this process) cancels the checkpoint before its image is complete.
func (s *Shim) Checkpoint(dir string, exit bool) error {
	return s.checkpoint(&options.CheckpointOptions{Exit: exit, ImagePath: dir})
}

// Move has the shim move its container to the address and returns when the
// container has left (nil), or when it runs here as before. It does not end
// early: the outcome decides which copy lives. The end of the connection (Close,
// or the death of this process) cancels the move before its commit.
func (s *Shim) Move(address string) error {
	return s.checkpoint(&options.CheckpointOptions{Exit: true, ImagePath: address})
}

func (s *Shim) checkpoint(opts *options.CheckpointOptions) error {
	o, err := anypb.New(opts)
	if err != nil {
		return err
	}
	// containerd's own options bear the bare name, as typeurl gives it.
	o.TypeUrl = string(o.MessageName())
	r := &taskapi.CheckpointTaskRequest{ID: s.id, Path: opts.ImagePath, Options: o}
	if _, err := taskapi.NewTTRPCTaskClient(s.client).Checkpoint(context.Background(), r); err != nil {
		return errgrpc.ToNative(err)
	}
	return nil
}
