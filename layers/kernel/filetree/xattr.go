// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// Names of attributes that have a meaning here.
const (
	attrCapability = "security.capability"
	attrACL        = "system.posix_acl_access"
	attrDefaultACL = "system.posix_acl_default"
	trustedPrefix  = "trusted."
)

// maxAttributes bounds all names or one value of a file: XATTR_LIST_MAX and
// XATTR_SIZE_MAX of include/uapi/linux/limits.h, in bytes.
const maxAttributes = 65536

// fate is what becomes of an attribute.
type fate int

const (
	fateCarried fate = iota
	fateLocal        // it belongs to the host or its file system
	fateRefused
)

// fateOf decides by the name alone, the same for both sides.
func fateOf(name string) fate {
	switch {
	case name == attrCapability, name == attrACL, name == attrDefaultACL, strings.HasPrefix(name, "user."):
		return fateCarried
	case strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "trusted.mig."):
		return fateLocal
	case strings.HasPrefix(name, trustedPrefix):
		return fateCarried
	case strings.HasPrefix(name, "security."), strings.HasPrefix(name, "btrfs."):
		// Labels and signatures are what this host's policy gives to files.
		return fateLocal
	}
	return fateRefused
}

// attributesOf lists the attributes of the file at path, which is looked up
// without following its last component, with their values.
func attributesOf(path string) (map[string][]byte, error) {
	names, err := listAttributes(path)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	out := make(map[string][]byte, len(names))
	buf := make([]byte, maxAttributes)
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		out[name] = bytes.Clone(buf[:n])
	}
	return out, nil
}

func listAttributes(path string) ([]string, error) {
	var small [256]byte
	buf := small[:]
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxAttributes)
		n, err = unix.Llistxattr(path, buf)
	}
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }), nil
}

// sortedAttributes turns the carried ones into messages.
func sortedAttributes(all map[string][]byte, ids IDs) ([]*state.FileAttribute, error) {
	var out []*state.FileAttribute
	for name, value := range all {
		switch fateOf(name) {
		case fateLocal:
			continue
		case fateRefused:
			return nil, &Refusal{Why: "its extended attribute " + name + " is of a kind that is not known", Remedy: "remove the attribute"}
		}
		value, err := translate(name, value, ids, inwards)
		if errors.Is(err, errMeaningless) {
			continue
		}
		if err != nil {
			return nil, &Refusal{Why: "its extended attribute " + name + ": " + err.Error(), Remedy: "remove the attribute"}
		}
		out = append(out, &state.FileAttribute{Name: []byte(name), Value: value})
	}
	slices.SortFunc(out, func(a, b *state.FileAttribute) int { return bytes.Compare(a.Name, b.Name) })
	return out, nil
}
