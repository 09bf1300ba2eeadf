// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// The kernel tells the inode that is watched, and a handle, not a path. File
// systems that can decode handles lead to it at once; of others (overlayfs) the
// mount is walked until all are found, directories near its root first. The
// pre-flight does so while the container runs, and what it found is looked at
// once more when it is stopped.

// watchedFile is an inode of a file system.
type watchedFile struct {
	dev procfs.Dev
	ino uint64
}

// sought is a watched file with what the kernel tells to find it by; nil: nothing.
type sought struct {
	watchedFile
	handle *procfs.FileHandle
}

// maxWalked bounds how many names are looked at.
const maxWalked = 1 << 20

// find returns paths of watched files in the container; what has none is left out.
func (s *Subsystem) find(list []sought) (map[watchedFile]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mounts, err := procfs.Host().Process(s.env.Source.Init).Mountinfo()
	if err != nil {
		return nil, err
	}
	f := &finder{pid: s.env.Source.Init, mounts: mounts, paths: s.paths, missing: map[watchedFile]bool{}}
	for i := range list {
		w := &list[i]
		file := w.watchedFile
		if f.leadsTo(s.paths[file], file) {
			continue
		}
		delete(s.paths, file)
		if at := f.byHandle(w); at != "" {
			s.paths[file] = at
			continue
		}
		f.missing[file] = true
	}
	f.walkAll()
	return s.paths, nil
}

// finder looks for files as one process sees them.
type finder struct {
	pid     int
	mounts  []procfs.Mount
	paths   map[watchedFile]string
	missing map[watchedFile]bool
	walked  int
}

// leadsTo reports whether a path leads to the file. Its number alone does not say
// that, and the device that stat(2) shows may be another than the watch's.
func (f *finder) leadsTo(at string, file watchedFile) bool {
	if at == "" {
		return false
	}
	fd, err := target.OpenPath(f.pid, at)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Ino != file.ino {
		return false
	}
	info, err := procfs.Host().Process(os.Getpid()).FDInfo(fd)
	if err != nil {
		return false
	}
	for i := range f.mounts {
		if f.mounts[i].ID == info.MntID {
			return f.mounts[i].Dev == file.dev
		}
	}
	return false
}

// byHandle asks the file system; the answer is empty if it does not know.
func (f *finder) byHandle(w *sought) string {
	if w.handle == nil {
		return ""
	}
	for i := range f.mounts {
		if f.mounts[i].Dev != w.dev {
			continue
		}
		if at := f.decode(f.mounts[i].Target, w.handle); f.leadsTo(at, w.watchedFile) {
			return at
		}
	}
	return ""
}

func (f *finder) decode(mount string, h *procfs.FileHandle) string {
	dir, err := target.OpenDirectory(f.pid, mount)
	if err != nil {
		return ""
	}
	defer unix.Close(dir)
	fd, err := unix.OpenByHandleAt(dir, unix.NewFileHandle(int32(h.Type), h.Handle), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	link, err := procfs.Host().Process(os.Getpid()).FDLink(fd)
	if err != nil || link.Kind != procfs.FDPath && link.Kind != procfs.FDDevice || link.Deleted {
		return ""
	}
	return link.Path
}

// walkAll walks the mounts of what is missing.
func (f *finder) walkAll() {
	for i := range f.mounts {
		m := &f.mounts[i]
		if f.wanted(m.Dev) {
			// A mount that cannot be walked hides what is in it.
			_ = f.walk(m)
		}
	}
}

func (f *finder) wanted(dev procfs.Dev) bool {
	for file := range f.missing {
		if file.dev == dev {
			return true
		}
	}
	return false
}

// walk looks at one mount, breadth first, and crosses into no other.
func (f *finder) walk(m *procfs.Mount) error {
	root, err := target.OpenDirectory(f.pid, m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return err
	}
	f.see(watchedFile{m.Dev, st.Ino}, m.Target)
	buf := make([]byte, 1<<16)
	for queue := []string{"."}; len(queue) > 0 && f.wanted(m.Dev); queue = queue[1:] {
		dir := queue[0]
		err := f.list(root, dir, buf, func(ino uint64, typ byte, name string) {
			at := path.Join(dir, name)
			f.see(watchedFile{m.Dev, ino}, path.Join(m.Target, at))
			if typ == unix.DT_DIR || typ == unix.DT_UNKNOWN {
				queue = append(queue, at)
			}
		})
		if errors.Is(err, errMany) {
			return err
		}
	}
	return nil
}

// see takes a name if it is one of those that are missing.
func (f *finder) see(file watchedFile, at string) {
	if f.missing[file] && f.leadsTo(at, file) {
		delete(f.missing, file)
		f.paths[file] = at
	}
}

var errMany = fmt.Errorf("more than %d names", maxWalked)

// list reads a directory below root. One that is gone, or is another mount, has
// no names.
func (f *finder) list(root int, dir string, buf []byte, fn func(ino uint64, typ byte, name string)) error {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(root, dir, &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n <= 0 {
			return err
		}
		if f.walked += eachName(buf[:n], fn); f.walked > maxWalked {
			return errMany
		}
	}
}

// eachName reads struct linux_dirent64 of getdents64(2) and counts the names.
func eachName(b []byte, fn func(ino uint64, typ byte, name string)) (n int) {
	const header = 19
	for len(b) > header {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size < header || size > len(b) {
			return n
		}
		name := b[header:size]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if s := string(name); s != "." && s != ".." {
			fn(binary.NativeEndian.Uint64(b), b[18], s)
			n++
		}
		b = b[size:]
	}
	return n
}

// mountAt is the number of the mount that a path leads to, -1 if to none.
func mountAt(pid int, at string) int {
	fd, err := target.OpenPath(pid, at)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	info, err := procfs.Host().Process(os.Getpid()).FDInfo(fd)
	if err != nil {
		return -1
	}
	return info.MntID
}
