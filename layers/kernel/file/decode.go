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

// threadShift: the entity of a thread's table is its id and a descriptor.
const threadShift = 32

// decodeThreadTable reads a part of a table that threads have of their own, the first
// of which it names.
func decodeThreadTable(r *record.Record) (tid int, msg *state.DescriptorTable, err error) {
	if n := r.Entity >> threadShift; n == 0 || n > maxThread || r.Entity&(1<<threadShift-1) >= maxFD {
		return 0, nil, fmt.Errorf("%s: no such thread, or no such descriptor", r.Header)
	}
	msg, err = decodeTable(r)
	return int(r.Entity >> threadShift), msg, err
}

func decodeWorking(r *record.Record) (*state.WorkingFiles, error) {
	msg := &state.WorkingFiles{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, err
	}
	if msg.Umask > 0o777 {
		return nil, fmt.Errorf("umask %#o", msg.Umask)
	}
	return msg, errors.Join(target.CheckPath("cwd", msg.Cwd), target.CheckPath("root", msg.Root))
}

func decodeOpen(r *record.Record) (*state.OpenFile, error) {
	f := &state.OpenFile{}
	if err := proto.Unmarshal(r.Payload, f); err != nil {
		return nil, err
	}
	if r.Entity == 0 {
		return nil, errors.New("descriptions are numbered from 1")
	}
	if f.Offset < 0 || f.Offset > target.MaxSize || f.Size < 0 || f.Size > target.MaxSize {
		if !f.Pseudo && f.Type != state.FileType_FILE_TYPE_DIRECTORY || f.Offset < 0 || f.Size < 0 {
			return nil, fmt.Errorf("offset %d in %d bytes is beyond the limit of %d", f.Offset, f.Size, int64(target.MaxSize))
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
		return target.CheckPath("path", f.Path)
	case state.FileType_FILE_TYPE_CHARACTER:
		if !devices[f.Device] {
			return fmt.Errorf("device %d:%d is not one that can be opened again", unix.Major(f.Device), unix.Minor(f.Device))
		}
		return target.CheckPath("path", f.Path)
	case state.FileType_FILE_TYPE_QUEUE:
		if name, ok := strings.CutPrefix(f.Path, "/"); !ok || name == "" || strings.ContainsAny(name, "/\x00") || len(name) > unix.NAME_MAX {
			return fmt.Errorf("message queue %q", f.Path)
		}
		return nil
	case state.FileType_FILE_TYPE_STDIO:
		if f.Stdio > 2 {
			return fmt.Errorf("standard stream %d", f.Stdio)
		}
		return nil
	case state.FileType_FILE_TYPE_OBJECT:
		if f.Object == 0 || f.Object > target.MaxObjects {
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
