// SPDX-License-Identifier: Apache-2.0

// Package rootfs looks after the files of a container that end with it: those on
// memory file systems that only this container has. This version carries none
// of them but those that are open, which travel with their descriptions (package
// file), and bound sockets (package socket): a new container's memory file
// systems are empty, as its spec says, so the pre-flight names what would be
// lost. The writable layer and volumes outlive the container; containerd's
// checkpoint takes the former along with --rw.
//
// /dev is left out: what is in it comes from the spec.
//
// Sources: mount_namespaces(7), tmpfs(5), openat2(2).
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Name of the subsystem. It has no records.
const Name = "rootfs"

// OptionTmpfs is the policy for files on the container's own memory file
// systems: TmpfsRefuse, the default, or TmpfsDrop, which warns.
const OptionTmpfs = "tmpfs"

// Values of OptionTmpfs.
const (
	TmpfsRefuse = "refuse"
	TmpfsDrop   = "drop"
)

// Subsystem is one event's view of the file systems.
type Subsystem struct{ env target.Env }

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Checkpoint has nothing to export: see Preflight.
func (s *Subsystem) Checkpoint(context.Context, record.Step, record.Sink) (record.Progress, error) {
	return record.Progress{Done: true}, nil
}

// Restart refuses records: this version writes none.
func (s *Subsystem) Restart(_ context.Context, _ record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{}, fmt.Errorf("%s: this version knows no such kind", in.Header)
	}
	return record.Progress{Done: true}, nil
}

// Fault cannot be served.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("rootfs: %s: %w", f.Header, errors.ErrUnsupported)
}

// Status of nothing.
func (s *Subsystem) Status() record.Status { return record.Status{} }

// Dump has nothing to tell.
func (s *Subsystem) Dump(io.Writer) error { return nil }

// dropTmpfs reads OptionTmpfs.
func dropTmpfs(env target.Env) (bool, error) {
	switch v := env.Options[OptionTmpfs]; v {
	case "", TmpfsRefuse:
		return false, nil
	case TmpfsDrop:
		return true, nil
	default:
		return false, fmt.Errorf("option %s=%s is not known: %s or %s", OptionTmpfs, v, TmpfsRefuse, TmpfsDrop)
	}
}
