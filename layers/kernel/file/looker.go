// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// looker knows the file systems of one process.
type looker struct {
	// pid is the process by whose root directory paths are looked up.
	pid    int
	proc   procfs.Task
	mounts map[int]procfs.Mount // by id
}

// newLooker reads the process's mounts. One that has another root directory than
// the container (chroot(2)) may have files open that are outside of it: their
// paths are the container's, and so are those that its copy is given before it
// changes its root. They are those of its first process, init.
//
// tables, if it is set, has what was read before: the processes are stopped.
func newLooker(proc procfs.Task, init int, tables *mountTables) (*looker, error) {
	eyes := proc
	if root, err := proc.Root(); err != nil {
		return nil, err
	} else if root.Path != "/" {
		eyes = procfs.Host().Process(init)
	}
	mounts, err := tables.of(eyes)
	if err != nil {
		return nil, err
	}
	return &looker{pid: eyes.Pid(), proc: proc, mounts: mounts}, nil
}

// mountTables are the mounts of stopped processes that have the root of their mount
// namespace for theirs, by the namespace. Nobody changes what it gives.
type mountTables struct {
	mu    sync.Mutex
	known map[uint64]map[int]procfs.Mount
}

// of are the mounts that the process sees, by id.
func (t *mountTables) of(proc procfs.Task) (map[int]procfs.Mount, error) {
	if t == nil {
		return readMounts(proc)
	}
	ns, err := proc.Namespace("mnt")
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.known[ns.Inode]; m != nil {
		return m, nil
	}
	m, err := readMounts(proc)
	if err != nil {
		return nil, err
	}
	if t.known == nil {
		t.known = map[uint64]map[int]procfs.Mount{}
	}
	t.known[ns.Inode] = m
	return m, nil
}

func readMounts(proc procfs.Task) (map[int]procfs.Mount, error) {
	list, err := proc.Mountinfo()
	if err != nil {
		return nil, err
	}
	mounts := make(map[int]procfs.Mount, len(list))
	for _, m := range list {
		mounts[m.ID] = m
	}
	return mounts, nil
}

func (l *looker) mount(id int) *procfs.Mount {
	m, ok := l.mounts[id]
	if !ok {
		return nil
	}
	return &m
}

// fdPath is the magic link of a descriptor.
func (l *looker) fdPath(d *target.Descriptor) string { return d.Path() }

func (l *looker) fsType(d *target.Descriptor) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(l.fdPath(d), &st); err != nil {
		return 0
	}
	return st.Type
}

// pseudo: sizes there say nothing about the content, and a removed file is the
// object's end.
func (l *looker) pseudo(d *target.Descriptor) bool {
	switch l.fsType(d) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC:
		return true
	}
	return false
}

func (l *looker) hugetlb(d *target.Descriptor) bool { return l.fsType(d) == unix.HUGETLBFS_MAGIC }

// owner translates the file's owner into the container's numbers.
func (l *looker) owner(d *target.Descriptor) (uid, gid uint32, err error) {
	return target.Owner(l.proc, &d.Stat)
}

// pathOf finds the path by which the restored container is to open the file,
// or where it was before it lost its name (gone). A path that leads to another
// file by now is a refusal.
//
// The kernel marks a file without a name by " (deleted)" behind its last one,
// which is also a legal end of a name: the two are told apart by looking.
func (l *looker) pathOf(d *target.Descriptor) (path string, gone bool, err error) {
	path = d.Link.Path
	if d.Link.Deleted {
		literal := path + " (deleted)"
		if same, err := l.leadsTo(literal, d); err != nil || same {
			return literal, false, err
		}
		if d.Stat.Nlink > 0 && d.Stat.Mode&unix.S_IFMT == unix.S_IFREG {
			if other, err := target.OtherName(l.pid, path, &d.Stat); err != nil || other != "" {
				return other, false, err
			}
		}
		return path, true, nil
	}
	same, err := l.leadsTo(path, d)
	if err != nil {
		return "", false, err
	}
	if !same {
		return "", false, &refusal{
			describeLink(d), "its path leads to another file now, or to none",
			"a mount hides it, or it is outside of the container's root: close it, or open it again by a path that exists",
		}
	}
	return path, false, nil
}

// leadsTo reports whether path is the descriptor's file. Of devices the number
// counts, not the inode: the standard streams may have come from outside.
func (l *looker) leadsTo(path string, d *target.Descriptor) (bool, error) {
	var st unix.Stat_t
	err := unix.Lstat(target.RootPath(l.pid, path), &st)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	if d.Stat.Mode&unix.S_IFMT == unix.S_IFCHR {
		return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == d.Stat.Rdev, nil
	}
	return st.Dev == d.Stat.Dev && st.Ino == d.Stat.Ino, nil
}
