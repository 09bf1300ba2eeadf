// SPDX-License-Identifier: Apache-2.0

package target

import (
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// OwnedBy is which subsystem exports, or refuses, an open file description.
type OwnedBy string

// The owners.
const (
	OwnerFile   OwnedBy = "file"
	OwnerPipe   OwnedBy = "pipe"
	OwnerEvent  OwnedBy = "event"
	OwnerSocket OwnedBy = "socket"
	OwnerTTY    OwnedBy = "tty"
)

// Owner tells whose the description is. Every description has exactly one, the
// same for the pre-flight and the export; what no other subsystem knows is the
// file subsystem's, which refuses what it does not know either.
func (d *Descriptor) Owner() OwnedBy {
	if d.Stdio >= 0 || d.Flags&unix.O_PATH != 0 {
		return OwnerFile
	}
	if d.Terminal() {
		return OwnerTTY
	}
	switch d.Link.Kind {
	case procfs.FDPipe:
		return OwnerPipe
	case procfs.FDSocket:
		return OwnerSocket
	case procfs.FDEventfd, procfs.FDEpoll, procfs.FDTimerfd, procfs.FDSignalfd,
		procfs.FDInotify, procfs.FDFanotify, procfs.FDPidfd:
		return OwnerEvent
	}
	return OwnerFile
}

// Readable and Writable say what the description was opened for.
func (d *Descriptor) Readable() bool { return d.Flags&unix.O_ACCMODE != unix.O_WRONLY }

// Writable is the counterpart of Readable.
func (d *Descriptor) Writable() bool { return d.Flags&unix.O_ACCMODE != unix.O_RDONLY }
