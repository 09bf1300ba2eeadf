// SPDX-License-Identifier: Apache-2.0

// Package file exports and imports descriptor tables, and the open file
// descriptions behind them that lead to files: regular files, directories,
// FIFOs and stateless devices by their path, files without a name with their
// content, and the container's standard streams, which belong to the shim.
//
// A description that several descriptors lead to travels once, under the id
// that target gives it; the tables name ids only. Descriptions of other kinds
// are carried by the subsystems pipe, event and socket under the same ids.
//
// On import files are opened by the task itself, inside the container's own
// root and with the rights of the live spec's user: no path and no symbolic
// link in an image leads further than the container could go by itself.
//
// Sources: proc(5), open(2), fcntl(2), flock(2), memfd_create(2).
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "file"

// Kinds of the subsystem's records, see spec/state/file.proto.
const (
	KindTable   = 1
	KindWorking = 2
	KindOpen    = 3
	KindObject  = 4
	KindContent = 5
	KindOwner   = 6
	// KindThreadTable is a state.DescriptorTable of threads that have their own. A
	// reader of an earlier version refuses it.
	KindThreadTable = 7
)

// Subsystem is one event's files.
type Subsystem struct {
	env target.Env

	entities, bytes, total atomic.Uint64
	// mounts of the stopped processes.
	mounts mountTables

	mu      sync.Mutex
	exports map[record.ProcessID]*export
	// stdio are the descriptions of the standard streams; see findStdio.
	stdio map[fileID]uint64
	in    *imported
}

// fileID is what tells files apart while they exist.
type fileID struct{ dev, ino uint64 }

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	return &Subsystem{
		env: env, exports: map[record.ProcessID]*export{},
		stdio: map[fileID]uint64{}, in: newImported(),
	}
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Status counts descriptions and the bytes of nameless files.
func (s *Subsystem) Status() record.Status {
	return record.Status{Entities: s.entities.Load(), Bytes: s.bytes.Load(), Total: s.total.Load()}
}

// Fault cannot be served: every record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("file: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what the import knows.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range sortedIDs(s.in.open) {
		f := s.in.open[id]
		fmt.Fprintf(w, "description %d: %s %q flags %#o offset %d, built %v\n", id, typeName(f.Type), f.Path, f.Flags, f.Offset, s.in.built[id] != 0)
	}
	for _, id := range sortedIDs(s.in.objects) {
		if o := s.env.Frame.Object(id); o != nil {
			fmt.Fprintf(w, "object %d: %q\n", id, o.Msg.Path)
		}
	}
	return nil
}

// typeName is how messages call a type.
func typeName(t state.FileType) string {
	switch t {
	case state.FileType_FILE_TYPE_REGULAR:
		return "file"
	case state.FileType_FILE_TYPE_DIRECTORY:
		return "directory"
	case state.FileType_FILE_TYPE_CHARACTER:
		return "character device"
	case state.FileType_FILE_TYPE_FIFO:
		return "FIFO"
	case state.FileType_FILE_TYPE_PATH:
		return "path (O_PATH)"
	case state.FileType_FILE_TYPE_STDIO:
		return "standard stream"
	case state.FileType_FILE_TYPE_OBJECT:
		return "file without a name"
	case state.FileType_FILE_TYPE_QUEUE:
		return "message queue"
	}
	return "file of an unknown type"
}

// Untraced reports that an export asks for the flags of some descriptors at most.
func (s *Subsystem) Untraced() bool { return true }
