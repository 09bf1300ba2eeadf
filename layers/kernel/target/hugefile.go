// SPDX-License-Identifier: Apache-2.0

package target

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// leastHuge is the least size of a huge page, which is the preferred block size of a
// file on hugetlbfs (st_blksize of stat(2)).
const leastHuge = 64 << 10

// OnHugetlbfs returns the size in bytes of a file's pages if it is on a hugetlbfs, else
// 0. path leads to the file, of which st is known.
func OnHugetlbfs(path string, st *unix.Stat_t) (uint64, error) {
	if st.Blksize < leastHuge {
		return 0, nil
	}
	var on unix.Statfs_t
	if err := unix.Statfs(path, &on); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if on.Type != unix.HUGETLBFS_MAGIC {
		return 0, nil
	}
	return uint64(on.Bsize), nil
}

// RefuseHugeFile says why a file on a hugetlbfs is not carried, "" if it is: the
// subsystem rootfs carries those that have a name, on file systems that only the
// container has.
func RefuseHugeFile(st *unix.Stat_t) (why string, err error) {
	if st.Nlink == 0 {
		return "it is on hugetlbfs and has no name, and such files are not carried by this version", nil
	}
	host, err := HostDevices()
	if err == nil && host[procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}] {
		why = "it is on a hugetlbfs of the host, and only those are carried that the container has for itself"
	}
	return why, err
}
