// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// mappedFile is a file that a process maps or executes.
type mappedFile struct {
	fileKey
	// link is the magic link that leads to it, whatever its name leads to.
	link string
	what string // for a person
}

// fileKey is what the kernel shows of a mapped file; equal keys are one file.
type fileKey struct {
	dev     procfs.Dev
	inode   uint64
	path    string
	deleted bool
	memfd   bool
	// shared: writes to the mapping are writes to the file.
	shared bool
}

// memfdPath begins what the kernel shows as the path of a memfd.
const memfdPath = "/memfd:"

// fileOf is the file of a mapping of kind MapFile or MapMemfd.
func fileOf(t procfs.Task, m *procfs.Mapping) mappedFile {
	return mappedFile{
		fileKey: fileKey{m.Dev, m.Inode, m.Path, m.Deleted, m.Kind == procfs.MapMemfd, m.Shared},
		link:    t.Path(fmt.Sprintf("map_files/%x-%x", m.Start, m.End)),
		what:    fmt.Sprintf("mapping %#x-%#x of %s", m.Start, m.End, m.Path),
	}
}

// executableOf is the file that a process executes.
func executableOf(t procfs.Task) (mappedFile, error) {
	exe, err := t.Exe()
	if exe.Kind == procfs.FDMemfd {
		// Its mapping tells what it is: here it only has to be named.
		exe.Path = memfdPath + exe.Name
	}
	return mappedFile{
		fileKey: fileKey{path: exe.Path, deleted: exe.Deleted},
		link:    t.Path("exe"), what: "executable " + exe.Path,
	}, err
}

// location is where a restore finds a file.
type location struct {
	stat unix.Stat_t
	// path by which it is opened.
	path string
	// object is set instead where the content travels with the image.
	object *state.FileObject
}

// located keeps the locations that were looked up.
type located struct {
	mu sync.Mutex
	by map[fileKey]*location
}

// locate finds out how a restore gets at a file that process t has, or refuses
// it. It looks at /proc and at the container's file system only, so the
// pre-flight and the export say the same.
func (s *Subsystem) locate(t procfs.Task, f mappedFile) (*location, error) {
	s.located.mu.Lock()
	defer s.located.mu.Unlock()
	if l := s.located.by[f.fileKey]; l != nil && f.inode != 0 {
		return l, nil
	}
	l := &location{}
	if err := unix.Stat(f.link, &l.stat); err != nil {
		return nil, fmt.Errorf("look at the file of %s: %w", f.what, err)
	}
	if l.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &refusal{f.what, "it is not of a regular file", ""}
	}
	if err := s.find(t, &f, l); err != nil {
		return nil, err
	}
	if s.located.by == nil {
		s.located.by = map[fileKey]*location{}
	}
	s.located.by[f.fileKey] = l
	return l, nil
}

// forgetLocations: between the pre-flight and the export names change.
func (s *Subsystem) forgetLocations() {
	s.located.mu.Lock()
	defer s.located.mu.Unlock()
	s.located.by = nil
}

// find looks for the file's name, and decides that the content travels where
// there is none.
func (s *Subsystem) find(t procfs.Task, f *mappedFile, l *location) error {
	if f.memfd {
		name := f.path[len(memfdPath):]
		seals, err := target.Seals(f.link)
		if err != nil {
			return fmt.Errorf("%s: %w", f.what, err)
		}
		o := &state.FileObject{Path: name, Memfd: true, Seals: seals}
		if err := target.SetHuge(o, &l.stat); err != nil {
			return err
		}
		if huge := o.HugePageSize; huge > 0 && uint64(l.stat.Size)%huge != 0 {
			return &refusal{f.what, fmt.Sprintf("its size of %d bytes is not one of whole huge pages", l.stat.Size), ""}
		}
		return l.travels(t, o)
	}
	path := f.path
	if f.deleted { // or its name ends like that
		path += " (deleted)"
	}
	same, err := s.leadsTo(path, &l.stat)
	if err != nil {
		return err
	}
	huge, err := target.OnHugetlbfs(f.link, &l.stat)
	if err != nil {
		return err
	}
	if huge > 0 {
		if why, err := target.RefuseHugeFile(&l.stat); err != nil || why != "" {
			return errors.Join(err, &refusal{f.what, why, "use MAP_HUGETLB without a file, or memfd_create(2) with MFD_HUGETLB"})
		}
	}
	if same {
		l.path = path
		return nil
	}
	if l.stat.Nlink > 0 {
		if l.path, err = target.OtherName(s.env.Source.Init, f.path, &l.stat); err != nil || l.path != "" {
			return err
		}
	}
	if err := mayTravel(f, l); err != nil {
		return err
	}
	return l.travels(t, &state.FileObject{Path: f.path})
}

// travels makes the location one of a file whose content is carried.
func (l *location) travels(t procfs.Task, o *state.FileObject) error {
	o.Size, o.Mode, l.object, l.path = l.stat.Size, l.stat.Mode&0o7777, o, ""
	var err error
	o.Uid, o.Gid, err = target.Owner(t, &l.stat)
	return err
}

// leadsTo reports whether the container finds this file by path. The paths that
// the kernel shows are those of the mount namespace's root.
func (s *Subsystem) leadsTo(path string, st *unix.Stat_t) (bool, error) {
	var now unix.Stat_t
	err := target.Lstat(s.env.Source.Init, path, &now)
	switch {
	case err == nil:
		return now.Dev == st.Dev && now.Ino == st.Ino, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ELOOP):
		return false, nil
	}
	return false, err
}

// Magic numbers that x/sys does not have, include/uapi/linux/magic.h.
const (
	magicDMABuf      = 0x444d4142
	magicAnonInode   = 0x09041934
	magicSecretMem   = 0x5345434d
	magicMessageFile = 0x19800202
)

// unreadable are file systems whose files' content is not what a mapping shows,
// or is nobody's to read.
var unreadable = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.BPF_FS_MAGIC: true,
	unix.HUGETLBFS_MAGIC: true, unix.NSFS_MAGIC: true, unix.PIPEFS_MAGIC: true, unix.SOCKFS_MAGIC: true,
	magicDMABuf: true, magicAnonInode: true, magicSecretMem: true, magicMessageFile: true,
}

// mayTravel refuses a file that has lost its name and whose content would not be
// the same file in a copy.
func mayTravel(f *mappedFile, l *location) error {
	var on unix.Statfs_t
	if err := unix.Statfs(f.link, &on); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", f.what, err)
	}
	if unreadable[on.Type] {
		return &refusal{f.what, fmt.Sprintf("its file has no name, and the content of such files (file system %#x) is not carried", on.Type), ""}
	}
	// A private mapping's file needs to have the same content, no more. (Of a
	// file of a lower layer, overlayfs counts links that the container cannot see.)
	if l.stat.Nlink > 0 && f.shared {
		return &refusal{f.what, "its name leads to another file, or to none, while another hard link, which cannot be found, remains", "remove the other link"}
	}
	return nil
}

// recognise corrects what the name alone made of a mapping: a removed file of
// the root directory may be called like one of the kernel's own.
func recognise(m *procfs.Mapping) error {
	switch m.Kind {
	case procfs.MapSharedAnon, procfs.MapMemfd, procfs.MapSysV, procfs.MapHugeAnon:
	default:
		return nil
	}
	if huge, err := target.HugeDevice(m.Dev); err != nil || huge > 0 && m.Kind != procfs.MapSharedAnon {
		return err
	}
	dev, err := target.ShmDevice()
	if err == nil && (m.Dev != dev || m.Kind == procfs.MapHugeAnon) {
		m.Kind = procfs.MapFile
	}
	return err
}
