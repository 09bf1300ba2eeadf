// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// opensPerPlan is how many descriptions one batch opens: enough that round
// trips do not count, few enough that their paths fit the scratch area.
const opensPerPlan = 256

func openat(path uint64, flags, mode int) tracer.Call {
	cwd := int64(unix.AT_FDCWD)
	return tracer.Syscall(unix.SYS_OPENAT, uint64(cwd), path, uint64(flags|unix.O_CLOEXEC), uint64(mode))
}

// build makes all files: it clears the tables, places the standard streams and
// opens everything that leads to a file, each description in one process. The
// subsystems behind it fill the rest, before share gives them to the others.
func (s *Subsystem) build() (uint64, error) {
	tasks := s.env.Frame.Tasks()
	for _, t := range tasks {
		if err := s.clear(t); err != nil {
			return 0, err
		}
	}
	var n uint64
	for _, t := range tasks {
		mine := s.claim(t)
		for part := range slices.Chunk(mine, opensPerPlan) {
			if err := s.openAll(t, part); err != nil {
				return 0, err
			}
		}
		n += uint64(len(mine))
	}
	for _, o := range sortedIDs(s.in.objects) {
		if err := s.env.Frame.FinishObject(o); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// clear empties a process's table but for what the engine keeps there.
func (s *Subsystem) clear(t *target.Task) error {
	if t.Traced == nil {
		return fmt.Errorf("process %d: %w", t.ID, target.ErrNotStopped)
	}
	if tab := s.in.tables[t.ID]; tab == nil || !tab.listed || tab.working == nil {
		return fmt.Errorf("process %d: the image has no descriptor table or no working directory for it", t.ID)
	}
	if t.SharesTable {
		return t.LiftLimit() // it is clear
	}
	if err := t.MoveStdio(); err != nil {
		return err
	}
	return giveStdio(t, s.env.Frame.Allowed.UID)
}

// claim lists the descriptions that a process opens: those that it is the first
// to have. Files without a name are opened where they are.
func (s *Subsystem) claim(t *target.Task) []uint64 {
	var mine []uint64
	for _, desc := range sortedIDs(s.in.open) {
		if s.in.built[desc] != 0 {
			continue
		}
		wanted := len(t.Table.Slots(desc)) > 0
		if s.in.open[desc].Type == state.FileType_FILE_TYPE_OBJECT {
			wanted = t.ID == target.FirstTask && s.env.Frame.Wanted(desc)
		}
		if wanted {
			s.in.built[desc] = t.ID
			mine = append(mine, desc)
		}
	}
	return mine
}

// giveStdio makes the live spec's user the owner of the standard streams, so
// that the program can open /dev/stdout again: a runtime does so for a program
// that it starts as that user, but a frame starts as root. Like there, a
// failure does not matter.
func giveStdio(t *target.Task, uid uint32) error {
	if uid == 0 {
		return nil
	}
	p := t.Plan()
	for _, fd := range t.Stdio {
		var st unix.Stat_t
		if fd < 0 || unix.Stat(t.Proc.Path(fmt.Sprintf("fd/%d", fd)), &st) != nil || devices[st.Rdev] {
			continue
		}
		const keep = uint64(^uint32(0))
		p.Quiet(tracer.Syscall(unix.SYS_FCHOWN, uint64(fd), uint64(uid), keep))
	}
	return p.Run()
}

// opening is a batch of descriptions that are being opened.
type opening struct {
	*target.Plan
	task  *target.Task
	frame *target.Frame
	// of names the description that a call is about.
	of map[int]uint64
}

// openAll opens descriptions by one batch and looks at what was opened.
func (s *Subsystem) openAll(t *target.Task, list []uint64) error {
	o := &opening{Plan: t.Plan(), task: t, frame: s.env.Frame, of: map[int]uint64{}}
	o.NarrowFiles()
	for _, desc := range list {
		from := o.Len()
		if err := o.add(desc, s.in.open[desc]); err != nil {
			return describe(desc, s.in.open[desc], err)
		}
		for i := from; i < o.Len(); i++ {
			o.of[i] = desc
		}
	}
	o.WidenFiles()
	if err := o.Run(); err != nil {
		var ce *tracer.CallError
		if errors.As(err, &ce) && o.of[ce.Index] != 0 {
			desc := o.of[ce.Index]
			return describe(desc, s.in.open[desc], explain(s.in.open[desc], err))
		}
		return err
	}
	for _, desc := range list {
		if err := verify(t, desc, s.in.open[desc]); err != nil {
			return describe(desc, s.in.open[desc], err)
		}
	}
	return nil
}

func describe(desc uint64, f *state.OpenFile, err error) error {
	return fmt.Errorf("%s %q (description %d): %w", typeName(f.Type), f.Path, desc, err)
}

// explain adds the remedy to a failed call.
func explain(f *state.OpenFile, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: the container's file system lacks it: restore onto the file system of the checkpoint (ctr containers checkpoint --rw)", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the user of the container's spec may not open it", err)
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: somebody else holds a lock on it", err)
	}
	return err
}

// add appends the calls for one description.
func (o *opening) add(desc uint64, f *state.OpenFile) error {
	switch f.Type {
	case state.FileType_FILE_TYPE_STDIO:
		return o.addStdio(desc, f)
	case state.FileType_FILE_TYPE_FIFO:
		return o.addFIFO(desc, f)
	case state.FileType_FILE_TYPE_QUEUE:
		flags := int(f.Flags) & (unix.O_ACCMODE | unix.O_NONBLOCK)
		fd := o.Open(tracer.Syscall(unix.SYS_MQ_OPEN, o.PutString(f.Path[1:]), uint64(flags|unix.O_CLOEXEC)))
		return o.Place(desc, fd)
	case state.FileType_FILE_TYPE_PATH:
		fd := o.Open(openat(o.PutString(f.Path), int(f.Flags&target.OpenFlags), 0))
		return o.Place(desc, fd)
	}
	path := f.Path
	if f.Type == state.FileType_FILE_TYPE_OBJECT {
		obj := o.frame.Object(f.Object)
		if obj == nil {
			return fmt.Errorf("its content, object %d, is not in the image", f.Object)
		}
		path = obj.Path()
	}
	fd := o.Open(openat(o.PutString(path), openFlags(f), 0))
	o.setStatus(fd, f)
	if f.Type != state.FileType_FILE_TYPE_CHARACTER {
		o.Call(tracer.Syscall(unix.SYS_LSEEK, uint64(fd), uint64(f.Offset), unix.SEEK_SET))
	}
	if err := o.Place(desc, fd); err != nil {
		return err
	}
	if at, ok := o.task.Table.Made(desc); ok {
		o.lock(at, f)
	}
	return nil
}

// openFlags are those to open with. O_NONBLOCK keeps a forged image from
// hanging the task on a FIFO where it said file; O_TMPFILE's own bit and what
// acts only once are left out, and so is O_NOFOLLOW's absence: the kernel shows
// no path that ends in a symbolic link.
func openFlags(f *state.OpenFile) int {
	flags := int(f.Flags&target.OpenFlags) | unix.O_NONBLOCK | unix.O_NOCTTY
	switch f.Type {
	case state.FileType_FILE_TYPE_OBJECT:
		return flags &^ (unix.O_NOFOLLOW | unix.O_DIRECTORY) // the path is a magic link
	case state.FileType_FILE_TYPE_DIRECTORY:
		return flags | unix.O_DIRECTORY | unix.O_NOFOLLOW
	}
	// A file made with O_TMPFILE shows O_DIRECTORY, which is part of that flag.
	return flags&^unix.O_DIRECTORY | unix.O_NOFOLLOW
}

// setStatus sets the flags that F_SETFL can change.
func (o *opening) setStatus(fd int, f *state.OpenFile) {
	o.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(f.Flags&target.StatusFlags)))
}

// addStdio places one of the container's own streams, or opens it once more.
func (o *opening) addStdio(desc uint64, f *state.OpenFile) error {
	own := o.task.Stdio[f.Stdio]
	if own < 0 {
		return fmt.Errorf("the container was created without standard stream %d", f.Stdio)
	}
	var fd int
	if f.Reopened {
		flags := int(f.Flags&target.OpenFlags)&^unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
		fd = o.Open(openat(o.PutString(fmt.Sprint(target.SelfFD, own)), flags, 0))
	} else {
		fd = o.DupAbove(own, o.task.Table.Aside())
	}
	o.setStatus(fd, f)
	return o.Place(desc, fd)
}

// addFIFO opens a FIFO. Opening the writing end without a reader fails, so a
// reader is held for the moment.
func (o *opening) addFIFO(desc uint64, f *state.OpenFile) error {
	path := o.PutString(f.Path)
	reader := -1
	if f.Flags&unix.O_ACCMODE == unix.O_WRONLY {
		reader = o.Open(openat(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0))
		above := o.DupAbove(reader, o.task.Table.Aside())
		o.Close(reader)
		reader = above
	}
	fd := o.Open(openat(path, openFlags(f), 0))
	o.setStatus(fd, f)
	if reader >= 0 {
		o.Close(reader)
	}
	return o.Place(desc, fd)
}

// lock takes the locks that belong to the description.
func (o *opening) lock(fd int, f *state.OpenFile) {
	if f.Flock != 0 {
		o.Call(tracer.Syscall(unix.SYS_FLOCK, uint64(fd), uint64(f.Flock|unix.LOCK_NB)))
	}
	for _, k := range f.OfdLock {
		o.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_OFD_SETLK, o.Put(encodeFlock(k))))
	}
	if f.Lease != 0 {
		o.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETLEASE, uint64(f.Lease-1)))
	}
}

// verify looks at what was opened.
//
// The type has to be what it was, and a device the same device. A file may have
// grown: any file can while a program has it open. One that is shorter is not
// the one that the program knew (it lost what the program may rely on, or the
// file system is not that of the checkpoint). Permissions, owner and times may
// have changed; they were checked, or not, when the file was opened first.
func verify(t *target.Task, desc uint64, f *state.OpenFile) error {
	at, ok := t.Table.Made(desc)
	if !ok {
		return errors.New("no descriptor leads to it")
	}
	var st unix.Stat_t
	if err := unix.Stat(t.Proc.Path(fmt.Sprintf("fd/%d", at)), &st); err != nil {
		return err
	}
	const mask = unix.S_IFMT
	switch f.Type {
	case state.FileType_FILE_TYPE_STDIO:
		return nil
	case state.FileType_FILE_TYPE_CHARACTER:
		if st.Rdev != f.Device {
			return fmt.Errorf("it is device %d:%d where %d:%d was open", unix.Major(st.Rdev), unix.Minor(st.Rdev), unix.Major(f.Device), unix.Minor(f.Device))
		}
	case state.FileType_FILE_TYPE_REGULAR:
		if !f.Pseudo && st.Size < f.Size {
			return fmt.Errorf("it has %d bytes, and had %d when it was checkpointed: it was cut off or replaced: restore onto the file system of the checkpoint", st.Size, f.Size)
		}
	}
	if want := typeBits(f); st.Mode&mask != want {
		return fmt.Errorf("it has file type %#o where %#o was open", st.Mode&mask, want)
	}
	return nil
}

// typeBits is the file type that must be found. It comes from the type that was
// checked, not from the mode, which is only believed for O_PATH.
func typeBits(f *state.OpenFile) uint32 {
	switch f.Type {
	case state.FileType_FILE_TYPE_REGULAR, state.FileType_FILE_TYPE_OBJECT, state.FileType_FILE_TYPE_QUEUE:
		return unix.S_IFREG
	case state.FileType_FILE_TYPE_DIRECTORY:
		return unix.S_IFDIR
	case state.FileType_FILE_TYPE_CHARACTER:
		return unix.S_IFCHR
	case state.FileType_FILE_TYPE_FIFO:
		return unix.S_IFIFO
	}
	return f.Mode & unix.S_IFMT
}
