// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// fileID is what tells files apart while they exist.
type fileID struct{ dev, ino uint64 }

// Bounds of a search: a person needs to know some names, not all.
const (
	maxNames   = 4
	maxEntries = 10000
)

// inspectTmpfs looks for files on file systems that end with the container.
func (s *Subsystem) inspectTmpfs(t procfs.Task, drop bool) ([]record.Finding, error) {
	mounts, err := t.Mountinfo()
	if err != nil {
		return nil, err
	}
	host, err := hostDevices()
	if err != nil {
		return nil, err
	}
	open, err := s.openFiles()
	if err != nil {
		return nil, err
	}
	root, err := os.Open(t.Path("root"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var out []record.Finding
	seen := map[procfs.Dev]bool{}
	for _, m := range mounts {
		memory := (m.FSType == "tmpfs" || m.FSType == "ramfs") && !host[m.Dev] && m.Target != "/dev"
		if !memory || seen[m.Dev] || under(mounts, m) {
			continue
		}
		seen[m.Dev] = true
		w := walk{open: open}
		if err := w.mount(root, m); err != nil {
			return nil, err
		}
		if len(w.names) > 0 {
			out = append(out, finding(m, &w, drop))
		}
	}
	return out, nil
}

func finding(m procfs.Mount, w *walk, drop bool) record.Finding {
	names := strings.Join(w.names, ", ")
	if w.more > 0 {
		names += fmt.Sprintf(" and %d more", w.more)
	}
	f := record.Finding{FD: -1, Subsystem: Name}
	f.What = m.FSType + " " + m.Target + " holds " + names
	f.Why = "files on the container's own memory file systems are not carried by this version unless they are open"
	f.Remedy = "mount a volume there, remove them, or choose " + OptionTmpfs + "=" + TmpfsDrop + ": the restored container will lack them"
	f.Warning = drop
	return f
}

// under reports whether a later mount hides m: its files can only be had by
// those who have them open.
func under(mounts []procfs.Mount, m procfs.Mount) bool {
	return slices.ContainsFunc(mounts, func(o procfs.Mount) bool { return o.Parent == m.ID && o.Target == m.Target })
}

// hostDevices are the file systems that we see: what a container has of them
// outlives it.
func hostDevices() (map[procfs.Dev]bool, error) {
	list, err := procfs.Host().Process(os.Getpid()).Mountinfo()
	if err != nil {
		return nil, fmt.Errorf("read the host's mounts: %w", err)
	}
	out := map[procfs.Dev]bool{}
	for _, m := range list {
		out[m.Dev] = true
	}
	return out, nil
}

// openFiles are those that travel with a description or a mapping.
func (s *Subsystem) openFiles() (map[fileID]bool, error) {
	pids, err := s.env.Source.Pids()
	if err != nil {
		return nil, err
	}
	out := map[fileID]bool{}
	for _, pid := range pids {
		list, err := s.env.Source.Look(pid)
		if err != nil {
			return nil, err
		}
		if err := mappedFiles(procfs.Host().Process(pid), out); err != nil {
			return nil, err
		}
		for _, d := range list {
			if d.Stat.Mode&unix.S_IFMT == unix.S_IFREG && d.Flags&unix.O_PATH == 0 {
				out[fileID{d.Stat.Dev, d.Stat.Ino}] = true
			}
		}
	}
	return out, nil
}

// mappedFiles adds the files that a process maps.
func mappedFiles(t procfs.Task, out map[fileID]bool) error {
	maps, err := t.Maps()
	if procfs.IsGone(err) {
		return nil
	}
	for i := range maps {
		var st unix.Stat_t
		link := t.Path(fmt.Sprintf("map_files/%x-%x", maps[i].Start, maps[i].End))
		if maps[i].Kind == procfs.MapFile && unix.Stat(link, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			out[fileID{st.Dev, st.Ino}] = true
		}
	}
	return err
}

// walk collects the names of what would be lost on one file system.
type walk struct {
	open    map[fileID]bool
	names   []string
	more    int
	entries int
	dev     uint64
}

// mount looks at a mount by its path in the container's root, through which no
// symbolic link leads: the container may change it while we look.
func (w *walk) mount(root *os.File, m procfs.Mount) error {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(int(root.Fd()), m.Target, &how)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return nil // a file that is mounted, or a mount that is gone
	}
	if err != nil {
		return &os.PathError{Op: "openat2", Path: m.Target, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return &os.PathError{Op: "fstat", Path: m.Target, Err: err}
	}
	w.dev = st.Dev
	if unix.Major(st.Dev) != m.Dev.Major || unix.Minor(st.Dev) != m.Dev.Minor {
		unix.Close(fd)
		return nil // something else is mounted there by now
	}
	return w.directory(fd, m.Target, m.Target)
}

// directory looks at one directory, whose descriptor it closes. A directory is
// told by what is in it, or by its own name if it is empty.
func (w *walk) directory(fd int, name, top string) error {
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	empty := true
	for w.entries < maxEntries {
		list, err := dir.Readdirnames(256)
		for _, entry := range list {
			empty = false
			w.entries++
			if err := w.entry(fd, path.Join(name, entry), entry, top); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if empty && name != top {
		w.add(name)
	}
	return nil
}

func (w *walk) entry(dir int, full, name, top string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: full, Err: err}
	}
	switch mode := st.Mode & unix.S_IFMT; {
	case st.Dev != w.dev: // a mount of its own
	case mode == unix.S_IFSOCK: // travels with its socket, or is dead
	case mode == unix.S_IFREG && w.open[fileID{st.Dev, st.Ino}]:
	case mode == unix.S_IFDIR:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: full, Err: err}
		}
		return w.directory(fd, full, top)
	default:
		w.add(full)
	}
	return nil
}

func (w *walk) add(name string) {
	if len(w.names) < maxNames {
		w.names = append(w.names, name)
		return
	}
	w.more++
}
