// SPDX-License-Identifier: Apache-2.0

// Package rootfs carries the files of a container that its copy would not find:
// whatever is on memory file systems that only this container has (/run,
// /dev/shm, /dev), and, if it moves to another host, its writable layer and those
// volumes that are to go along. The package filetree does the work; this one
// finds the trees, on both sides, and says what the live spec allows.
//
// A container that moves writes to its files while they travel: every early
// round is a pass over all trees, and the last pass is made when it is stopped.
// Without a move, the layer and volumes are left to who asked (ctr containers
// checkpoint --rw).
//
// Records come in the order of the subsystems, before memory and file, which
// map and open files by their paths: a file on a tmpfs is the same file, for
// all who have it, as on a disk. Files without a name travel with their
// descriptions and mappings.
//
// Sources: mount_namespaces(7), tmpfs(5), Documentation/filesystems/overlayfs.rst.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Name is what the subsystem's records are called by.
const Name = "rootfs"

// Kinds of the subsystem's records, see spec/state/filetree.proto.
const (
	KindTree  = 1
	KindItems = 2
	KindMount = 3
)

// OptionTmpfs is the policy for files on the container's own memory file
// systems: TmpfsCarry, the default, or TmpfsDrop, which leaves out, with a
// warning, the content of those that nobody has open or maps.
const OptionTmpfs = "tmpfs"

// Options of a move. Lists have commas between their items.
const (
	// OptionCopy lists destinations of bind mounts whose content goes along. The
	// destination host needs it, too: what is there is changed.
	OptionCopy = "copy-volume"
	// OptionShared lists those whose content the other host has.
	OptionShared = "shared-volume"
	// OptionContent says what becomes of files that a volume has at the
	// destination: ContentRefuse, the default, wants none, ContentReplace makes
	// them those of the source.
	OptionContent = "volume-content"
	// OptionBase is a directory of this host with the content of the container's
	// image, for roots that are no overlay. The destination's root must be that
	// of the same image.
	OptionBase = "rootfs-base"
)

// Values of OptionContent.
const (
	ContentRefuse  = "refuse"
	ContentReplace = "replace"
)

// Values of OptionTmpfs.
const (
	TmpfsCarry = "carry"
	TmpfsDrop  = "drop"
)

// Subsystem is one event's view of the file systems.
type Subsystem struct {
	env target.Env

	entities, bytes atomic.Uint64

	// opened are the roots of memory file systems, by the ids of their mounts.
	opened map[int]*os.File

	// mapped are what the container's processes map, in a move.
	mapped *mappings

	out export
	in  imports
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Fault cannot be served: every record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("rootfs: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// SharedOnly reports that files and mounts are the container's.
func (s *Subsystem) SharedOnly() bool { return true }

// Status counts files that were looked at, or made, and bytes of their content.
func (s *Subsystem) Status() record.Status {
	return record.Status{Entities: s.entities.Load(), Bytes: s.bytes.Load()}
}

// Dump lists the trees.
func (s *Subsystem) Dump(w io.Writer) error {
	for _, t := range s.out.trees {
		fmt.Fprintf(w, "exported tree %d: %s, %d records\n", t.id, t.path, t.records)
	}
	for id, t := range s.in.trees {
		fmt.Fprintf(w, "imported tree %d: %s, %d records\n", id, t.path, t.records)
	}
	return nil
}

// dropTmpfs reads OptionTmpfs.
func dropTmpfs(env target.Env) (bool, error) {
	switch v := env.Options[OptionTmpfs]; v {
	case "", TmpfsCarry:
		return false, nil
	case TmpfsDrop:
		return true, nil
	default:
		return false, fmt.Errorf("option %s=%s is not known: %s or %s", OptionTmpfs, v, TmpfsCarry, TmpfsDrop)
	}
}
