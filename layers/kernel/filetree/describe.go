// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/state"
)

// Flags of include/uapi/linux/fs.h that are carried.
const (
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagNoDump    = 0x40
)

// flagsOf are they by what statx(2) calls them.
var flagsOf = []struct {
	attribute uint64
	flag      uint32
}{
	{unix.STATX_ATTR_IMMUTABLE, flagImmutable},
	{unix.STATX_ATTR_APPEND, flagAppend},
	{unix.STATX_ATTR_NODUMP, flagNoDump},
}

// carriedFlags are all of them.
const carriedFlags = flagImmutable | flagAppend | flagNoDump

// maxEntry bounds an entry, in bytes, so that items fit into records.
const maxEntry = 1 << 20

// describe makes a file's entry. at is where its attributes are found. A file
// that is refused is errLeftOut, or ends the pass.
func (w *walk) describe(at, path string, st *unix.Statx_t) (*state.TreeEntry, error) {
	e, err := w.entryOf(at, path, st)
	if err == nil && w.o.Check != nil {
		if r := w.o.Check(path, e); r != nil {
			err = r
		}
	}
	var r *Refusal
	if errors.As(err, &r) {
		if err := w.refuse(path, r.Why, r.Remedy); err != nil {
			return nil, err
		}
		return nil, errLeftOut
	}
	return e, err
}

// entryOf makes a file's entry, or a *Refusal.
func (w *walk) entryOf(at, path string, st *unix.Statx_t) (*state.TreeEntry, error) {
	e := &state.TreeEntry{
		Path: []byte(path), Mode: uint32(st.Mode),
		Uid: inner(w.o.IDs.UID, st.Uid), Gid: inner(w.o.IDs.GID, st.Gid),
		Atime: timeOf(st.Atime), Mtime: timeOf(st.Mtime),
	}
	for _, f := range flagsOf {
		if st.Attributes&f.attribute != 0 {
			e.Flags |= f.flag
		}
	}
	switch fileType(st) {
	case unix.S_IFREG:
		e.Size = int64(st.Size)
	case unix.S_IFLNK:
		target, err := os.Readlink(at)
		if err != nil {
			return nil, err
		}
		e.Target = []byte(target)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Device = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	}
	all, err := attributesOf(at)
	if err != nil {
		return nil, err
	}
	e.Attribute, err = sortedAttributes(all, w.o.IDs)
	if err == nil && w.o.Layer {
		err = w.layerAttributes(e, all)
	}
	if err == nil && len(e.Attribute) > 0 && fileType(st) == unix.S_IFLNK {
		err = &Refusal{Why: "it is a symbolic link with the extended attribute " + string(e.Attribute[0].Name), Remedy: "remove the attribute"}
	}
	if n := proto.Size(e); err == nil && n > maxEntry {
		err = &Refusal{Why: fmt.Sprintf("its extended attributes have %d bytes", n), Remedy: "remove some"}
	}
	return e, err
}

// sumOf is a checksum of what an entry says. When a file was read last, or by
// us, is no reason to send it.
func (w *walk) sumOf(e *state.TreeEntry) (uint64, error) {
	atime, fresh, opaque := e.Atime, e.Fresh, e.Opaque
	e.Atime, e.Fresh, e.Opaque = nil, false, false
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	e.Atime, e.Fresh, e.Opaque = atime, fresh, opaque
	if err != nil {
		return 0, fmt.Errorf("encode the entry of %s: %w", e.Path, err)
	}
	return maphash.Bytes(w.seed, b), nil
}
