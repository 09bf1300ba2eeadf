// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

const groupName = "fanotify group"

// What fanotify_init(2) and fanotify_mark(2) take and fdinfo shows.
const (
	fidFlags    = unix.FAN_REPORT_FID | unix.FAN_REPORT_DIR_FID | unix.FAN_REPORT_NAME | unix.FAN_REPORT_TARGET_FID
	classFlags  = unix.FAN_CLASS_CONTENT | unix.FAN_CLASS_PRE_CONTENT
	adminFlags  = classFlags | unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS | unix.FAN_REPORT_TID | unix.FAN_REPORT_PIDFD | unix.FAN_REPORT_FD_ERROR
	groupFlags  = fidFlags | adminFlags | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_ENABLE_AUDIT
	openFlags   = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_SYNC | unix.O_CLOEXEC | largeFile | unix.O_NOATIME
	largeFile   = 0o100000 // O_LARGEFILE of the kernel; amd64's libraries have 0
	markFlags   = ignoreFlags | unix.FAN_MARK_EVICTABLE
	ignoreFlags = unix.FAN_MARK_IGNORED_SURV_MODIFY | unix.FAN_MARK_IGNORE
	// decideMask are the events that wait for the program's answer.
	decideMask = unix.FAN_OPEN_PERM | unix.FAN_ACCESS_PERM | unix.FAN_OPEN_EXEC_PERM | unix.FAN_PRE_ACCESS
	// markMask are the events that are told of, from FAN_ACCESS to FAN_OPEN_EXEC,
	// and what says of which files.
	markMask = 1<<13 - 1 | unix.FAN_FS_ERROR | unix.FAN_RENAME | unix.FAN_ONDIR | unix.FAN_EVENT_ON_CHILD
)

// group describes a fanotify group without its marks.
func group(info *procfs.FanotifyInfo, flags uint32) (*state.EventGroup, error) {
	if unknown := info.Flags &^ groupFlags; unknown != 0 {
		return nil, &refusal{groupName, fmt.Sprintf("its flags %#x are not carried by this version", unknown), "stop the program that listens"}
	}
	for _, m := range info.Marks {
		if (m.Mask|m.IgnoredMask)&decideMask != 0 {
			return nil, &refusal{
				groupName, "it decides who may open or read files (FAN_OPEN_PERM and the like): whoever asks while its program is stopped would wait for it, this checkpoint too",
				"have the program remove these marks before the checkpoint",
			}
		}
		if unknown := (m.Mask|m.IgnoredMask)&^markMask | m.MFlags&^markFlags; unknown != 0 || m.MntNS != 0 {
			return nil, &refusal{groupName, fmt.Sprintf("a mark of it has events or flags that are not carried by this version (%#x)", unknown), "remove the mark before the checkpoint"}
		}
	}
	return &state.EventGroup{Flags: flags, Init: info.Flags, EventFlags: info.EventFlags}, nil
}

// describeGroup adds a group's marks, and whether events wait to be read.
func (s *Subsystem) describeGroup(d *target.Descriptor, m *state.EventGroup) (err error) {
	if m.Mark, err = s.describeMarks(d.Info.Fanotify.Marks); err != nil {
		return err
	}
	if m.Overflow, err = unreadEvents(d); err != nil || !m.Overflow {
		return err
	}
	switch {
	case m.Init&classFlags != 0:
		// It may have had marks that decide, and nobody sees of what kind an event is.
		return &refusal{groupName, "it has events that were not read, which may wait for an answer (FAN_CLASS_CONTENT or FAN_CLASS_PRE_CONTENT)", "try again when the program has read them"}
	case m.Init&unix.FAN_UNLIMITED_QUEUE != 0:
		return &refusal{groupName, "it has events that were not read, and cannot be told of an overflow instead, since its queue has no limit (FAN_UNLIMITED_QUEUE)", "try again when the program has read them"}
	}
	return nil
}

// describeMarks finds what is marked by its path. A mark that has become empty
// (an ignore mask is emptied when the file is modified) is left out.
func (s *Subsystem) describeMarks(marks []procfs.FanotifyMark) ([]*state.GroupMark, error) {
	var files []sought
	for _, m := range marks {
		if m.Ino != 0 {
			files = append(files, sought{watchedFile{m.Dev, m.Ino}, m.Handle})
		}
	}
	paths, err := s.find(files)
	if err != nil {
		return nil, err
	}
	mounts, err := procfs.Host().Process(s.env.Source.Init).Mountinfo()
	if err != nil {
		return nil, err
	}
	var out []*state.GroupMark
	for _, m := range marks {
		if m.Mask|m.IgnoredMask == 0 {
			continue
		}
		mark := &state.GroupMark{Flags: m.MFlags, Mask: m.Mask, Ignored: m.IgnoredMask}
		var missing string
		switch {
		case m.Ino != 0:
			mark.Path, missing = paths[watchedFile{m.Dev, m.Ino}], fmt.Sprintf("inode %d on device %d:%d", m.Ino, m.Dev.Major, m.Dev.Minor)
		case m.MntID != 0:
			mark.Object, missing = unix.FAN_MARK_MOUNT, fmt.Sprintf("the mount with number %d", m.MntID)
			mark.Path = s.mountPoint(mounts, func(at *procfs.Mount) bool { return at.ID == m.MntID })
		default:
			mark.Object, missing = unix.FAN_MARK_FILESYSTEM, fmt.Sprintf("the file system on device %d:%d", m.Dev.Major, m.Dev.Minor)
			mark.Path = s.mountPoint(mounts, func(at *procfs.Mount) bool { return at.Dev == m.Dev })
		}
		if mark.Path == "" {
			return nil, &refusal{groupName, missing + ", which it has marked, is not found by any name in the container: it was removed, is outside, or is hidden by a mount", "remove the mark before the checkpoint"}
		}
		if !s.childrenCount(mark) {
			mark.Mask &^= unix.FAN_EVENT_ON_CHILD
		}
		out = append(out, mark)
	}
	return out, nil
}

// mountPoint is where the first mount is that is wanted and that nothing hides.
func (s *Subsystem) mountPoint(mounts []procfs.Mount, wanted func(*procfs.Mount) bool) string {
	for i := range mounts {
		if m := &mounts[i]; wanted(m) && mountAt(s.env.Source.Init, m.Target) == m.ID {
			return m.Target
		}
	}
	return ""
}

// childrenCount reports whether a mark is one of a directory: of others the
// kernel sets FAN_EVENT_ON_CHILD by itself, and may not let a program set it.
func (s *Subsystem) childrenCount(m *state.GroupMark) bool {
	var st unix.Stat_t
	return m.Object == unix.FAN_MARK_INODE && target.Lstat(s.env.Source.Init, m.Path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// unprivileged guesses whether a group was made without CAP_SYS_ADMIN, which
// nothing shows: by what it has, and by what its program may do now.
func unprivileged(p *target.Process, m *state.EventGroup) (bool, error) {
	if needsAdmin(m) {
		return false, nil
	}
	st, err := p.Proc.Status()
	if err != nil {
		return false, err
	}
	return st.Cap.Permitted&(1<<unix.CAP_SYS_ADMIN) == 0, nil
}

// needsAdmin reports whether a group is one that only CAP_SYS_ADMIN can make.
func needsAdmin(m *state.EventGroup) bool {
	return m.Init&adminFlags != 0 || m.Init&fidFlags == 0 ||
		slices.ContainsFunc(m.Mark, func(mark *state.GroupMark) bool { return mark.Object != unix.FAN_MARK_INODE })
}

func checkGroup(m *state.EventGroup) error {
	if m.Init&^groupFlags != 0 || m.EventFlags&^openFlags != 0 || len(m.Mark) > maxWatches || m.Overflow && m.Init&(classFlags|unix.FAN_UNLIMITED_QUEUE) != 0 {
		return fmt.Errorf("fanotify group with flags %#x, %#x, %d marks, overflow %v", m.Init, m.EventFlags, len(m.Mark), m.Overflow)
	}
	for _, mark := range m.Mark {
		object := mark.Object == unix.FAN_MARK_INODE || mark.Object == unix.FAN_MARK_MOUNT || mark.Object == unix.FAN_MARK_FILESYSTEM
		if !object || mark.Flags&^markFlags != 0 || (mark.Mask|mark.Ignored)&^markMask != 0 || mark.Mask|mark.Ignored == 0 {
			return fmt.Errorf("mark of object %#x with flags %#x, mask %#x, ignored %#x", mark.Object, mark.Flags, mark.Mask, mark.Ignored)
		}
		if err := target.CheckPath("marked path", mark.Path); err != nil {
			return err
		}
	}
	return nil
}

// mayListen says by name what the kernel would refuse without one.
func (s *Subsystem) mayListen(t *target.Task) error {
	allowed := t.Allowed()
	for _, desc := range s.mine(t.ID) {
		if m, ok := s.in[desc].(*state.EventGroup); ok && needsAdmin(m) && !allowed.CanReach(unix.CAP_SYS_ADMIN) {
			return fmt.Errorf("descriptor %d is a fanotify group that needs CAP_SYS_ADMIN, which the container's spec does not give it: add it to the spec", t.Table.Slots(desc)[0].FD)
		}
	}
	return nil
}

// openGroup makes a group without marks: with what the live spec lets a process
// do, since the kernel remembers it.
func openGroup(p *target.Plan, m *state.EventGroup) int {
	if m.Unprivileged {
		p.NarrowFilesWithout(unix.CAP_SYS_ADMIN)
	} else {
		p.NarrowFiles()
	}
	fd := p.Open(tracer.Syscall(unix.SYS_FANOTIFY_INIT, uint64(m.Init), uint64(m.EventFlags)))
	p.WidenFiles()
	return fd
}

// watchMarks gives a group its marks.
func watchMarks(t *target.Task, fd int, m *state.EventGroup) error {
	if m.Overflow {
		if err := overflowGroup(t, fd, m); err != nil {
			return fmt.Errorf("have the reader of descriptor %d told of an overflow: %w", fd, err)
		}
	}
	for part := range slices.Chunk(m.Mark, watchesPerPlan) {
		p := t.Plan()
		p.NarrowFiles()
		for _, mark := range part {
			addMark(p, fd, mark)
		}
		p.WidenFiles()
		if err := p.Run(); err != nil {
			return fmt.Errorf("fanotify group at descriptor %d: mark files (from %s on): %w (are they there, may the container's user read them, and is fs.fanotify.max_user_marks large enough?)", fd, part[0].Path, err)
		}
	}
	return nil
}

// addMark sets the events, then those that are ignored. A path leads to the file
// itself, also to a symbolic link.
func addMark(p *target.Plan, fd int, m *state.GroupMark) {
	path := p.PutString(m.Path)
	call := func(flags, mask uint32) {
		flags |= m.Object | m.Flags&unix.FAN_MARK_EVICTABLE | unix.FAN_MARK_DONT_FOLLOW
		p.Call(tracer.Syscall(unix.SYS_FANOTIFY_MARK, uint64(fd), uint64(flags), uint64(mask), atCwd, path))
	}
	if m.Mask != 0 {
		call(unix.FAN_MARK_ADD, m.Mask)
	}
	ignore := m.Flags & ignoreFlags
	if ignore&unix.FAN_MARK_IGNORE == 0 {
		ignore |= unix.FAN_MARK_IGNORED_MASK
	}
	switch {
	case m.Ignored != 0:
		call(unix.FAN_MARK_ADD|ignore, m.Ignored)
	case m.Flags&ignoreFlags != 0:
		// It once ignored something, and its flags are still there.
		call(unix.FAN_MARK_ADD|ignore, unix.FAN_OPEN)
		call(unix.FAN_MARK_REMOVE|ignore, unix.FAN_OPEN)
	}
}

// atCwd is AT_FDCWD: all paths are absolute.
const atCwd = ^uint64(99)
