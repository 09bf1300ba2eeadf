// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Limits on what an image may ask for. Nothing is allocated beyond the record
// itself before they are checked.
const (
	// maxFD is the kernel's own limit, fs.nr_open's default.
	maxFD = 1 << 20
	// maxPath is PATH_MAX without the NUL byte.
	maxPath = 4095
	// maxSize is the largest size or offset of a file that an image may name:
	// what entities of contents can count.
	maxSize = contentGrain << objectShift
	// maxMemfdName is the kernel's limit for memfd_create(2).
	maxMemfdName = 249
	// allSeals are F_SEAL_SEAL to F_SEAL_EXEC.
	allSeals = 0x3f
)

// decodeTable reads a part of a table.
func decodeTable(r *record.Record) (*state.DescriptorTable, error) {
	msg := &state.DescriptorTable{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, err
	}
	for _, slot := range msg.Slot {
		if slot.Fd >= maxFD || slot.Description == 0 {
			return nil, fmt.Errorf("descriptor %d leads to description %d: numbers below %d and descriptions from 1 are allowed", slot.Fd, slot.Description, maxFD)
		}
	}
	for _, k := range msg.PosixLock {
		if err := checkRange(k); err != nil || k.Fd >= maxFD {
			return nil, errors.Join(fmt.Errorf("lock on descriptor %d", k.Fd), err)
		}
	}
	return msg, nil
}

func decodeWorking(r *record.Record) (*state.WorkingFiles, error) {
	msg := &state.WorkingFiles{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, err
	}
	if msg.Umask > 0o777 {
		return nil, fmt.Errorf("umask %#o", msg.Umask)
	}
	return msg, errors.Join(checkPath("cwd", msg.Cwd), checkPath("root", msg.Root))
}

func decodeOpen(r *record.Record) (*state.OpenFile, error) {
	f := &state.OpenFile{}
	if err := proto.Unmarshal(r.Payload, f); err != nil {
		return nil, err
	}
	if r.Entity == 0 {
		return nil, errors.New("descriptions are numbered from 1")
	}
	if f.Offset < 0 || f.Offset > maxSize || f.Size < 0 || f.Size > maxSize {
		if !f.Pseudo && f.Type != state.FileType_FILE_TYPE_DIRECTORY || f.Offset < 0 || f.Size < 0 {
			return nil, fmt.Errorf("offset %d in %d bytes is beyond the limit of %d", f.Offset, f.Size, int64(maxSize))
		}
	}
	if f.Flags&unix.O_ACCMODE == unix.O_ACCMODE || f.Flags&^(keptFlags) != 0 {
		return nil, fmt.Errorf("flags %#o: only %#o may be set", f.Flags, keptFlags)
	}
	return f, errors.Join(checkType(f), checkLocks(f))
}

// keptFlags are those that a description may have. Some of them say how it was
// opened and are not given again: see target.OpenFlags.
const keptFlags = target.OpenFlags | unix.O_TMPFILE | unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC

// checkType checks the fields that the type needs.
func checkType(f *state.OpenFile) error {
	switch f.Type {
	case state.FileType_FILE_TYPE_REGULAR, state.FileType_FILE_TYPE_DIRECTORY,
		state.FileType_FILE_TYPE_FIFO, state.FileType_FILE_TYPE_PATH:
		return checkPath("path", f.Path)
	case state.FileType_FILE_TYPE_CHARACTER:
		if !devices[f.Device] {
			return fmt.Errorf("device %d:%d is not one that can be opened again", unix.Major(f.Device), unix.Minor(f.Device))
		}
		return checkPath("path", f.Path)
	case state.FileType_FILE_TYPE_STDIO:
		if f.Stdio > 2 {
			return fmt.Errorf("standard stream %d", f.Stdio)
		}
		return nil
	case state.FileType_FILE_TYPE_OBJECT:
		if f.Object == 0 || f.Object > maxObjects {
			return fmt.Errorf("file without a name number %d", f.Object)
		}
		return nil
	}
	return fmt.Errorf("file type %d is not known", f.Type)
}

func checkLocks(f *state.OpenFile) error {
	if f.Flock > unix.LOCK_EX || f.Lease > 2 {
		return fmt.Errorf("flock %d, lease %d", f.Flock, f.Lease)
	}
	for _, k := range f.OfdLock {
		if err := checkRange(k); err != nil {
			return err
		}
	}
	return nil
}

func checkRange(k *state.RangeLock) error {
	const most = 1<<63 - 1
	if k.Start > most || k.Length > most || k.Start+k.Length > 1<<63 {
		return fmt.Errorf("lock on %d bytes at %d", k.Length, k.Start)
	}
	return nil
}

func decodeObject(r *record.Record) (*state.FileObject, error) {
	msg := &state.FileObject{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, err
	}
	switch {
	case r.Entity == 0 || r.Entity > maxObjects:
		return nil, fmt.Errorf("files without a name are numbered from 1 to %d", maxObjects)
	case msg.Size < 0 || msg.Size > maxSize:
		return nil, fmt.Errorf("size %d is beyond the limit of %d", msg.Size, int64(maxSize))
	case msg.Mode > 0o7777 || msg.Seals&^allSeals != 0:
		return nil, fmt.Errorf("mode %#o, seals %#x", msg.Mode, msg.Seals)
	case !msg.Memfd:
		return msg, checkPath("path", msg.Path)
	case msg.Named || len(msg.Path) > maxMemfdName || strings.ContainsRune(msg.Path, 0):
		return nil, errors.New("a memfd's name is too long or not valid")
	}
	return msg, nil
}

// checkPath accepts what open(2) can take and what the kernel can have shown:
// an absolute path without "." and ".." on it.
func checkPath(what, p string) error {
	if len(p) == 0 || len(p) > maxPath || p[0] != '/' || strings.ContainsRune(p, 0) {
		return fmt.Errorf("%s of %d bytes is not an absolute path of 1 to %d bytes", what, len(p), maxPath)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "." || part == ".." {
			return fmt.Errorf("%s %q is not one that the kernel shows", what, p)
		}
	}
	return nil
}
