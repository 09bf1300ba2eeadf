// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// Marks of an overlay's upper directory, as Documentation/filesystems/
// overlayfs.rst has them. Mounted with "userxattr", their prefix is "user.".
var overlayPrefixes = []string{"trusted.overlay.", "user.overlay."}

// isWhiteout reports whether a name of an upper directory stands for a removed
// one: a character device 0:0, or an empty file with a mark.
func isWhiteout(dir int, name string, st *unix.Statx_t) (bool, error) {
	switch fileType(st) {
	case unix.S_IFCHR:
		return st.Rdev_major == 0 && st.Rdev_minor == 0, nil
	case unix.S_IFREG:
		if st.Size != 0 {
			return false, nil
		}
	default:
		return false, nil
	}
	names, err := listAttributes(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name))
	if gone(err) {
		return false, nil // the walk will see
	}
	for _, n := range names {
		for _, prefix := range overlayPrefixes {
			if n == prefix+"whiteout" {
				return true, nil
			}
		}
	}
	return false, err
}

// whiteout sends the removal of a name, once.
func (w *walk) whiteout(path, name string, parent *node, st *unix.Statx_t) error {
	old := parent.kids[name]
	if old != nil && old.whiteout {
		return nil
	}
	// What was there goes with the removal, which comes last; until then it can
	// be linked.
	w.removals = append(w.removals, removal{path, parent, name})
	if old != nil {
		return nil // the next pass notes the mark
	}
	return w.add(parent, name, path, &node{ino: st.Ino, whiteout: true})
}

// errNotSelfContained: an upper directory that cannot be read alone.
var errNotSelfContained = errors.New("the container's root is mounted with redirect_dir or metacopy, and the file's name or content is in a lower layer")

// layerAttributes takes the overlay's own marks out of an entry and acts on
// them.
func (w *walk) layerAttributes(e *state.TreeEntry, all map[string][]byte) error {
	kept := e.Attribute[:0]
	for _, a := range e.Attribute {
		if !strings.HasPrefix(string(a.Name), overlayPrefixes[1]) {
			kept = append(kept, a)
		}
	}
	e.Attribute = kept
	for _, prefix := range overlayPrefixes {
		for _, mark := range []string{"redirect", "metacopy"} {
			if _, ok := all[prefix+mark]; ok {
				return &Refusal{Why: errNotSelfContained.Error(), Remedy: "mount it without these options"}
			}
		}
		// "x" says only that marked files may be in it.
		if string(all[prefix+"opaque"]) == "y" {
			e.Opaque = true
		}
		for _, c := range string(all[prefix+"protattr"]) {
			switch c {
			case 'i':
				e.Flags |= flagImmutable
			case 'a':
				e.Flags |= flagAppend
			}
		}
	}
	return nil
}
