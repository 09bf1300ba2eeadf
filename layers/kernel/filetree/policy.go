// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// Policy is what an Importer may do. The zero value allows the least. It comes
// from the live request, never from what is imported.
type Policy struct {
	// IDs of the container's user namespace.
	IDs IDs
	// Owner, if it is set, is the only user that files may be given to, in the
	// container's numbers, with any of the Groups: everybody else's become that
	// user's, and lose what would give rights to whoever executes them.
	Owner  *uint32
	Groups []uint32
	// Foreign allows others' files in spite of that; they lose their rights all
	// the same.
	Foreign bool
	// Device tells whether a device node may be made. nil allows none.
	Device func(mode uint32, device uint64) bool
	// Trusted allows attributes of the name space trusted, Flags that files are
	// made immutable or append-only.
	Trusted, Flags bool
	// Protected are paths in the tree on which something is mounted: what is
	// there is never removed or replaced.
	Protected []string
	// Write, if it is set, writes the content of files in the place of
	// pwrite(2), so that the storage is accounted to the container.
	Write Writer
}

// Writer writes to files of the tree.
type Writer interface {
	// WriteAt writes all of b, which is the caller's again on return.
	WriteAt(f *os.File, b []byte, at int64) error
	// Close is called behind the last call for f.
	Close(f *os.File) error
}

// Holer is a Writer that takes away the storage of a range, or fills it with zeroes, in
// the place of fallocate(2).
type Holer interface {
	Hole(f *os.File, at, length int64) error
}

// setID are the bits that change the user of whoever executes a file.
const setID = unix.S_ISUID | unix.S_ISGID

// Check tells, on the side that exports, what an import with this policy would
// not make, nil if there is nothing.
func (p *Policy) Check(path string, e *state.TreeEntry) *Refusal {
	switch kind := e.Mode & unix.S_IFMT; {
	case (kind == unix.S_IFCHR || kind == unix.S_IFBLK) && (p.Device == nil || !p.Device(e.Mode, e.Device)):
		return &Refusal{path, fmt.Sprintf("it is device %d:%d, which the container's spec does not let it make (CAP_MKNOD)", unix.Major(e.Device), unix.Minor(e.Device)), "remove it"}
	case e.Flags&(flagImmutable|flagAppend) != 0 && !p.Flags:
		return &Refusal{path, "it is immutable or append-only, which the container's spec does not let it make (CAP_LINUX_IMMUTABLE)", "chattr -ia"}
	}
	for _, a := range e.Attribute {
		if strings.HasPrefix(string(a.Name), trustedPrefix) && !p.Trusted {
			return &Refusal{path, "it has the extended attribute " + string(a.Name) + ", which the container's spec does not let it set", "remove the attribute"}
		}
	}
	return nil
}

// owner translates an owner and narrows owner and mode.
func (p *Policy) owner(uid, gid, mode uint32) (outUID, outGID, outMode uint32, foreign bool, err error) {
	if p.Owner != nil {
		foreign = uid != *p.Owner || !slices.Contains(p.Groups, gid)
	}
	if foreign && !p.Foreign {
		if uid != *p.Owner {
			uid = *p.Owner
		}
		if !slices.Contains(p.Groups, gid) && len(p.Groups) > 0 {
			gid = p.Groups[0]
		}
	}
	if foreign {
		mode &^= setID
	}
	if outUID, err = outwards.id(p.IDs, false, uid); err != nil {
		return 0, 0, 0, false, err
	}
	outGID, err = outwards.id(p.IDs, true, gid)
	return outUID, outGID, mode, foreign, err
}
