// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim/agenthost"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Migrator carries out checkpoints and restores. The service works without one
// (then both are refused as not implemented) and knows nothing of engines,
// images or media.
//
// Calls for different tasks run at the same time; for one task there is at most
// one at a time, and while it lasts the service neither pauses, resumes nor
// deletes the task and starts no exec session in it. A client may kill it at
// any moment, and it may exit.
type Migrator interface {
	// Open is called when the server starts. An error is logged: containers run
	// without it, and a checkpoint or a restore may fail later for the same reason.
	Open() error
	// Checkpoint writes the task's image. On an error the task is as it was
	// before: running or paused. With r.Exit its processes are killed after
	// the image is complete and safe; the service sees their exit by itself.
	Checkpoint(ctx context.Context, r CheckpointRequest) error
	// PrepareRestore opens and checks the image before anything is created.
	// If it fails, nothing is left to be closed.
	PrepareRestore(ctx context.Context, r RestoreRequest) (Restore, error)
}

// Restore is one restore from its preparation to its end.
type Restore interface {
	// Frame is what the container is to be created with. The files stay the
	// restore's; they are used until the container has been created.
	Frame() *runtime.Frame
	// Run turns the created frame container into the tasks of the image. It
	// is called at most once. After an error the service kills the frame.
	Run(ctx context.Context, c *runtime.Container) error
	// Close frees what the restore holds. The service calls it exactly once:
	// after Run, or instead of it if the task is deleted before its start.
	Close() error
}

// CheckpointRequest asks for the image of one task.
type CheckpointRequest struct {
	ID, Namespace, Bundle string
	Container             *runtime.Container
	// Spec is the container's OCI configuration, not to be changed.
	Spec *specs.Spec
	// Image is a directory, which exists, or a medium's URL.
	Image string
	// Work is a directory for logs and scratch files; empty if the client
	// named none.
	Work string
	// Exit says that the task's processes end with the checkpoint.
	Exit bool
	// Paused says that the cgroup was frozen by the client. It has to be
	// frozen afterwards, unless the task has ended.
	Paused bool
	// PausedNow: the pause is so young that the client of the checkpoint has made
	// it. What runs in between must be frozen at the end all the same.
	PausedNow bool
	// InDoubt is to be called when the answer to COMMIT is overdue, or the engine has
	// ended, and the task stays frozen until its destination, or a person, says what
	// becomes of it. It may be called again.
	InDoubt func()
	// Agent is the application's, nil if it has none.
	Agent *agenthost.Server
	// Options are the client's, nil if it sent none.
	Options *options.CheckpointOptions
}

// RestoreRequest asks for a task made from an image.
type RestoreRequest struct {
	ID, Namespace, Bundle string
	// Spec is the configuration of the request, which an image can only
	// narrow; not to be changed.
	Spec *specs.Spec
	// Image is a directory or a medium's URL.
	Image string
}
