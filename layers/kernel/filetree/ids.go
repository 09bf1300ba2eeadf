// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"github.com/io-mig/mig/layers/kernel/procfs"
)

// IDs are the maps of a container's user namespace, as its uid_map and gid_map
// have them. Without any, ids are those of the host.
type IDs struct{ UID, GID []procfs.IDMap }

// overflowID is what the kernel shows for an id that a user namespace lacks
// (/proc/sys/kernel/overflowuid).
const overflowID = 65534

// inner translates an id of the host into the container's.
func inner(maps []procfs.IDMap, id uint32) uint32 {
	if maps == nil {
		return id
	}
	for _, m := range maps {
		if id >= m.Outside && id-m.Outside < m.Count {
			return m.Inside + (id - m.Outside)
		}
	}
	return overflowID
}

// outer translates an id of the container into the host's; ok is false for one
// that the container does not have.
func outer(maps []procfs.IDMap, id uint32) (out uint32, ok bool) {
	if maps == nil {
		return id, true
	}
	for _, m := range maps {
		if id >= m.Inside && id-m.Inside < m.Count {
			return m.Outside + (id - m.Inside), true
		}
	}
	return 0, false
}
