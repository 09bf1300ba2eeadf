// SPDX-License-Identifier: Apache-2.0

package file

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// posixLocks collects the locks that belong to the process. fdinfo shows them
// at the descriptions through which they were set; each is taken once.
func posixLocks(list []target.Descriptor) ([]*state.RangeLock, error) {
	var out []*state.RangeLock
	seen := map[uint64]bool{}
	for i := range list {
		d := &list[i]
		if d.Owner() != target.OwnerFile || seen[d.Description] {
			continue
		}
		seen[d.Description] = true
		for j := range d.Info.Locks {
			if d.Info.Locks[j].Class != procfs.LockPOSIX {
				continue
			}
			r, err := rangeLock(&d.Info.Locks[j])
			if err != nil {
				return nil, fmt.Errorf("fd %d: %w", d.FD, err)
			}
			r.Fd = uint32(d.FD)
			out = append(out, r)
		}
	}
	return out, nil
}

func rangeLock(k *procfs.Lock) (*state.RangeLock, error) {
	r := &state.RangeLock{Start: uint64(k.Start), Write: k.Access == "WRITE"}
	if k.Access != "WRITE" && k.Access != "READ" {
		return nil, &refusal{"lock", "its mode " + k.Access + " is not known", ""}
	}
	if k.End != procfs.LockEOF {
		r.Length = uint64(k.End-k.Start) + 1
	}
	return r, nil
}

// fileLocks adds the locks that belong to the description.
func fileLocks(d *target.Descriptor, msg *state.OpenFile) error {
	for i := range d.Info.Locks {
		k := &d.Info.Locks[i]
		switch k.Class {
		case procfs.LockPOSIX: // the process's: see posixLocks
		case procfs.LockFlock:
			msg.Flock = unix.LOCK_SH
			if k.Access == "WRITE" {
				msg.Flock = unix.LOCK_EX
			}
		case procfs.LockOFD:
			r, err := rangeLock(k)
			if err != nil {
				return err
			}
			msg.OfdLock = append(msg.OfdLock, r)
		case procfs.LockLease:
			if k.Mode != "ACTIVE" {
				return &refusal{describeLink(d), "its lease is being broken", "try again in a moment"}
			}
			msg.Lease = 1 + unix.F_RDLCK
			if k.Access == "WRITE" {
				msg.Lease = 1 + unix.F_WRLCK
			}
		default:
			return &refusal{describeLink(d), "it has a lock of a class that is not carried", ""}
		}
	}
	if msg.Lease != 0 && msg.Type == state.FileType_FILE_TYPE_OBJECT {
		// To read the content, it would have to be opened.
		return &refusal{describeLink(d), "it has a lease, which reading its content would break", "give the lease back"}
	}
	return nil
}

// encodeFlock is struct flock of include/uapi/asm-generic/fcntl.h.
func encodeFlock(r *state.RangeLock) []byte {
	b := make([]byte, 32)
	typ := uint16(unix.F_RDLCK)
	if r.Write {
		typ = unix.F_WRLCK
	}
	binary.LittleEndian.PutUint16(b, typ)
	binary.LittleEndian.PutUint64(b[8:], r.Start)
	binary.LittleEndian.PutUint64(b[16:], r.Length)
	return b
}
