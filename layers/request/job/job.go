// SPDX-License-Identifier: Apache-2.0

// Package job is what a supervisor and its engine process tell each other: the
// job, its progress and its end. It holds data only.
package job

import (
	"fmt"
	"time"
)

// Kind is what an engine is asked to do.
type Kind string

// The kinds of jobs.
const (
	Checkpoint Kind = "checkpoint"
	Restore    Kind = "restore"
)

// Job is one order to one engine process. It is sent once, as JSON; fields may
// be added, and an engine ignores those that it does not know, since supervisor
// and engine are of one build.
type Job struct {
	Kind Kind `json:"kind"`
	// Request is the id of the request that the job belongs to, Token what
	// names it across hosts.
	Request string `json:"request"`
	Token   string `json:"token"`

	// Container and Namespace as containerd names them.
	Container string `json:"container"`
	Namespace string `json:"namespace"`
	// Bundle is the OCI bundle's directory, Rootfs the mounted root
	// filesystem's, both absolute and in the supervisor's mount namespace.
	Bundle string `json:"bundle"`
	Rootfs string `json:"rootfs"`
	// SpecPath is the file of the live request's OCI spec. Spec is used in its
	// place where it is not empty.
	SpecPath string `json:"spec_path,omitempty"`
	Spec     []byte `json:"spec,omitempty"`

	// InitPid is the container's first process as the supervisor sees it, or
	// the frame's.
	InitPid int `json:"init_pid"`
	// InitStart is its start time in clock ticks since boot (field 22 of
	// /proc/pid/stat), which tells it from a later process with its pid.
	InitStart uint64 `json:"init_start,omitempty"`
	// Cgroups are the container's directories by controller; cgroup v2 has one,
	// under the empty name. Freezer is the one that freezes it.
	Cgroups map[string]string `json:"cgroups,omitempty"`
	Freezer string            `json:"freezer,omitempty"`

	// Image is the URL or the absolute directory of the image.
	Image string `json:"image"`
	// Work is a directory for logs and failure reports, may be empty.
	Work string `json:"work,omitempty"`
	// Leave lets the container run on after a checkpoint.
	Leave bool `json:"leave"`
	// WasPaused: the container was paused before the request and has to be
	// afterwards.
	WasPaused bool `json:"was_paused,omitempty"`
	// Strategy is the transfer order's name, see control.StrategyByName.
	Strategy string `json:"strategy,omitempty"`
	// Quiesce: the supervisor is to be asked to put the application to rest before
	// the container is stopped (Quiescer).
	Quiesce bool `json:"quiesce,omitempty"`
	// Timeout bounds the job as a whole, 0 means no bound.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Journal is the directory of a move's journal, empty for journal.Dir.
	Journal string `json:"journal,omitempty"`
	// Options are the request's other options, for the engine's modules.
	Options map[string]string `json:"options,omitempty"`

	// Stdio are the container's standard streams.
	Stdio [3]Stream `json:"stdio"`
	// Terminal: the three streams are one terminal.
	Terminal bool `json:"terminal,omitempty"`
	// Files names the descriptors that travel with the job, in their order, for
	// example "frame" for the frame's socket.
	Files []string `json:"files,omitempty"`
}

// Stream is one of a container's standard streams.
type Stream struct {
	// URI is what containerd asked for: a FIFO's path, "file://", "binary://" or
	// empty.
	URI string `json:"uri,omitempty"`
	// Dev and Ino are what fstat(2) says of what the container's init was given
	// as this stream; both 0 if it was given none of the shim's.
	Dev uint64 `json:"dev,omitempty"`
	Ino uint64 `json:"ino,omitempty"`
	// File is the index in Job.Files of the descriptor that replaces it in a
	// restored container, or -1.
	File int `json:"file"`
}

// Valid checks what every job needs. What the fields name is checked by whoever
// opens it.
func (j *Job) Valid() error {
	switch {
	case j.Kind != Checkpoint && j.Kind != Restore:
		return fmt.Errorf("job: unknown kind %q", j.Kind)
	case j.Container == "":
		return fmt.Errorf("job: a %s needs a container", j.Kind)
	case j.Image == "":
		return fmt.Errorf("job: a %s needs an image", j.Kind)
	case j.InitPid <= 0:
		return fmt.Errorf("job: %d is not the pid of a container's first process", j.InitPid)
	}
	return nil
}
