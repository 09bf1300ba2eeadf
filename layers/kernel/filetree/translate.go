// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// direction of a translation of ids.
type direction int

const (
	inwards  direction = iota // the host's into the container's
	outwards                  // back
)

// id translates a user or group id.
func (d direction) id(ids IDs, group bool, id uint32) (uint32, error) {
	maps := ids.UID
	if group {
		maps = ids.GID
	}
	if d == inwards {
		return inner(maps, id), nil
	}
	out, ok := outer(maps, id)
	if !ok {
		return 0, fmt.Errorf("id %d is not one of the container's user namespace", id)
	}
	return out, nil
}

// translate changes the ids in a value. Values without ids stay as they are.
func translate(name string, value []byte, ids IDs, d direction) ([]byte, error) {
	switch name {
	case attrACL, attrDefaultACL:
		return translateACL(value, ids, d)
	case attrCapability:
		return translateCapability(value, ids, d)
	}
	return value, nil
}

// Constants of include/uapi/linux/posix_acl_xattr.h and posix_acl.h: a version,
// then entries of tag, permissions and id.
const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntry     = 8
	aclUser      = 0x02
	aclGroup     = 0x08
	aclUndefined = 0xffffffff
)

var errACL = errors.New("an access control list of an unknown format")

func translateACL(value []byte, ids IDs, d direction) ([]byte, error) {
	le := binary.LittleEndian
	if len(value) < aclHeader || (len(value)-aclHeader)%aclEntry != 0 || le.Uint32(value) != aclVersion {
		return nil, errACL
	}
	out := append([]byte(nil), value...)
	for e := out[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		tag := le.Uint16(e)
		if tag != aclUser && tag != aclGroup {
			le.PutUint32(e[4:], aclUndefined)
			continue
		}
		id, err := d.id(ids, tag == aclGroup, le.Uint32(e[4:]))
		if err != nil {
			return nil, err
		}
		le.PutUint32(e[4:], id)
	}
	return out, nil
}

// Constants of include/uapi/linux/capability.h, struct vfs_ns_cap_data.
const (
	capRevisionMask = 0xff000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capSize2        = 20
	capSize3        = 24
)

var (
	errCapability = errors.New("file capabilities of an unknown format")
	// errMeaningless: such capabilities are left out.
	errMeaningless = errors.New("file capabilities of the host's root in a user namespace")
)

// translateCapability changes the id of the root whose capabilities they are.
// Those of revision 2 are the initial user namespace's: a container in one of
// its own neither has nor gets them.
func translateCapability(value []byte, ids IDs, d direction) ([]byte, error) {
	le := binary.LittleEndian
	if len(value) < 4 {
		return nil, errCapability
	}
	switch revision := le.Uint32(value) & capRevisionMask; {
	case revision == capRevision2 && len(value) == capSize2:
		if ids.UID == nil {
			return value, nil
		}
		if d == inwards {
			return nil, errMeaningless
		}
		out := append(append([]byte(nil), value...), 0, 0, 0, 0)
		le.PutUint32(out, le.Uint32(out)&^capRevisionMask|capRevision3)
		return translateCapability(out, ids, d)
	case revision == capRevision3 && len(value) == capSize3:
		root, err := d.id(ids, false, le.Uint32(value[capSize2:]))
		if err != nil {
			return nil, err
		}
		out := append([]byte(nil), value...)
		le.PutUint32(out[capSize2:], root)
		return out, nil
	}
	return nil, errCapability
}
