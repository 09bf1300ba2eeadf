// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// runtimeDevices are the paths that a runtime may mount by itself: in a user
// namespace it cannot make device nodes, and a terminal is mounted as console.
var runtimeDevices = []string{
	"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx",
}

// made lists the mounts that the live spec does not explain: the container, or
// somebody in its namespace, made them. missing are mounts of the spec that are
// not there.
func made(init procfs.Task, mounts []procfs.Mount, host map[procfs.Dev]bool, files *target.Files) (list []procfs.Mount, missing []string, err error) {
	if !files.Complete {
		return nil, nil, nil // nobody knows what there should be
	}
	e := &expectation{byID: map[uint64]*procfs.Mount{}, count: map[string]int{}, types: map[string]string{}}
	for i := range mounts {
		e.byID[uint64(mounts[i].ID)] = &mounts[i]
	}
	if e.root, err = os.Open(init.Path("root")); err != nil {
		return nil, nil, err
	}
	defer e.root.Close()
	for i := range files.Mounts {
		m := &files.Mounts[i]
		at := e.expect(m.Destination)
		if slices.Contains(exactTypes, m.Type) {
			e.types[at] = m.Type
		}
		switch {
		case at == "":
			missing = append(missing, m.Destination)
		case m.Bind() || m.Type == "cgroup":
			// What is mounted below comes along.
			e.below = append(e.below, at+"/")
		}
	}
	for _, paths := range [][]string{files.Masked, files.Devices, runtimeDevices} {
		for _, p := range paths {
			e.expect(p)
		}
	}
	for _, m := range mounts {
		if !e.explains(&m) && !(files.Hooks && host[m.Dev]) {
			list = append(list, m)
		}
	}
	return list, missing, nil
}

// exactTypes are the types of a spec's mounts that the kernel shows as they are.
var exactTypes = []string{"tmpfs", hugeType, "proc", "sysfs", "devpts", "mqueue"}

// expectation is what a runtime mounts.
type expectation struct {
	root *os.File
	byID map[uint64]*procfs.Mount
	// count says how many mounts are expected at a mount point, below what paths
	// any are.
	count map[string]int
	types map[string]string // of those that are known
	below []string
}

// expect notes that something is mounted at a path of the spec, which may lead
// through symbolic links, and returns the mount point; "" if nothing is.
func (e *expectation) expect(path string) string {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(e.root.Fd()), path, &how)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st) != nil || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return ""
	}
	m := e.byID[st.Mnt_id]
	if m == nil {
		return ""
	}
	e.count[m.Target]++
	return m.Target
}

// explains takes one off the count. The mounts are asked about in the order in
// which they were made.
func (e *expectation) explains(m *procfs.Mount) bool {
	if m.Target == "/" {
		return true
	}
	if want := e.types[m.Target]; e.count[m.Target] > 0 && (want == "" || want == m.FSType) {
		e.count[m.Target]--
		return true
	}
	for _, prefix := range e.below {
		if strings.HasPrefix(m.Target, prefix) {
			return true
		}
	}
	return false
}

// bindSource finds the path in the container that a bind mount shows.
func bindSource(pid int, mounts []procfs.Mount, m *procfs.Mount) (string, bool) {
	var want, got unix.Stat_t
	if m.RootDeleted || target.Lstat(pid, m.Target, &want) != nil {
		return "", false
	}
	for _, c := range mounts {
		rest, ok := strings.CutPrefix(m.Root, strings.TrimSuffix(c.Root, "/"))
		if c.ID == m.ID || c.Dev != m.Dev || !ok || rest != "" && rest[0] != '/' {
			continue
		}
		path := strings.TrimSuffix(c.Target, "/") + rest
		if path == "" {
			path = "/"
		}
		if path != m.Target && target.Lstat(pid, path, &got) == nil && got.Dev == want.Dev && got.Ino == want.Ino {
			return path, true
		}
	}
	return "", false
}

// describeMount names one for a person.
func describeMount(m *procfs.Mount) string {
	return fmt.Sprintf("mount of %s (%s) on %s", m.Source, m.FSType, m.Target)
}
