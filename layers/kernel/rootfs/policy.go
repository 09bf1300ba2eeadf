// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/filetree"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// idsOf reads the user namespace of a process.
func idsOf(t procfs.Task) (filetree.IDs, error) {
	uids, err1 := t.UIDMap()
	gids, err2 := t.GIDMap()
	if err := errors.Join(err1, err2); err != nil {
		return filetree.IDs{}, err
	}
	if target.Identity(uids) && target.Identity(gids) {
		return filetree.IDs{}, nil
	}
	return filetree.IDs{UID: uids, GID: gids}, nil
}

// policyOf is what files on the container's memory file systems may be: what a
// container of the live spec could make there.
func policyOf(a *target.Allowed, t procfs.Task) (filetree.Policy, error) {
	ids, err := idsOf(t)
	if err != nil {
		return filetree.Policy{}, err
	}
	uids, err := t.UIDMap()
	if err != nil {
		return filetree.Policy{}, err
	}
	mknod := a.Reaches(unix.CAP_MKNOD, uids)
	p := filetree.Policy{
		IDs: ids, Trusted: a.Reaches(unix.CAP_SYS_ADMIN, uids), Flags: a.Reaches(unix.CAP_LINUX_IMMUTABLE, uids),
		Device: func(uint32, uint64) bool { return mknod },
	}
	if !a.AnyUser() {
		p.Owner, p.Groups = &a.UID, append([]uint32{a.GID}, a.Groups...)
	}
	return p, nil
}
