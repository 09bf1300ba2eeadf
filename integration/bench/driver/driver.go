// SPDX-License-Identifier: Apache-2.0

// Package driver runs, checkpoints and restores containers in the ways that
// the benchmark compares: mig's shim through its task service, runc with CRIU
// through runc's command line, and both through containerd.
package driver

import (
	"context"
	"time"
)

// Driver is one of the ways. Its methods are called one after the other.
type Driver interface {
	// Name is short and fit for a table.
	Name() string
	// Run creates and starts a container. The caller removes it.
	Run(ctx context.Context, c *Container) error
	// Checkpoint writes an image into a directory that does not exist yet. With
	// leave the container runs on, otherwise it has ended.
	Checkpoint(ctx context.Context, c *Container, image string, leave bool) (time.Duration, error)
	// Restore creates a container from an image and returns once it runs. The
	// caller removes it.
	Restore(ctx context.Context, c *Container, image string) (Restored, error)
	// Remove ends a container, whatever its state, and forgets it.
	Remove(ctx context.Context, c *Container) error
}

// Restored is how long a restore took.
type Restored struct {
	// Shim is the start of a shim process; 0 where that is not seen.
	Shim time.Duration
	// Create is what creates the container, before its processes exist; 0 where
	// the two cannot be told apart.
	Create time.Duration
	// Fill is the rest.
	Fill time.Duration
}

// Total is the whole restore.
func (r Restored) Total() time.Duration { return r.Shim + r.Create + r.Fill }

// Container is one container and its bundle.
type Container struct {
	ID     string
	Bundle string // OCI bundle: a directory with config.json and rootfs
	// Stdout is where its standard output and error go, a URI as containerd
	// has them ("file:///path"); empty: nowhere. Mig only.
	Stdout string
	// Pid of its first process, set by Run and Restore.
	Pid int

	shim *shim // mig only
}
