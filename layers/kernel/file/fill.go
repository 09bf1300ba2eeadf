// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// object is a file without a name under construction.
type object struct {
	msg *state.FileObject
	fd  int // of the first process, until it is finished
}

// maker is the process that makes nameless files.
const maker record.ProcessID = 1

// receiveObject makes the file. The task does it itself, so that its pages are
// charged to the container's cgroup and its owner is one of the container's.
func (s *Subsystem) receiveObject(r *record.Record) error {
	msg, err := decodeObject(r)
	if err != nil {
		return err
	}
	if s.in.objects[r.Entity] != nil {
		return fmt.Errorf("%s: the file exists already", r.Header)
	}
	t, err := s.task(maker)
	if err != nil {
		return err
	}
	var fd int
	switch {
	case msg.Memfd:
		fd, err = makeFile(t, msg, func(p *target.Plan) tracer.Call {
			return tracer.Syscall(unix.SYS_MEMFD_CREATE, p.PutString(msg.Path), uint64(memfdFlags(msg)))
		})
	case msg.Named:
		fd, err = makeFile(t, msg, func(p *target.Plan) tracer.Call {
			return openat(p.PutString(msg.Path), unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW, 0o600)
		})
	default:
		fd, err = makeUnnamed(t, msg)
	}
	if err != nil {
		return fmt.Errorf("make the file %s again: %w", msg.Path, err)
	}
	s.in.objects[r.Entity] = &object{msg, fd}
	return nil
}

// memfdFlags: seals come last, but for the one that says that the file never
// was executable: a system may forbid the others (vm.memfd_noexec).
func memfdFlags(msg *state.FileObject) int {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if msg.Mode&0o111 == 0 && msg.Seals&unix.F_SEAL_EXEC != 0 {
		return flags | unix.MFD_NOEXEC_SEAL
	}
	return flags | unix.MFD_EXEC
}

func openat(path uint64, flags, mode int) tracer.Call {
	cwd := int64(unix.AT_FDCWD)
	return tracer.Syscall(unix.SYS_OPENAT, uint64(cwd), path, uint64(flags|unix.O_CLOEXEC), uint64(mode))
}

// makeUnnamed makes a file without a name in the directory where it had one,
// or in the nearest one above that exists.
func makeUnnamed(t *target.Task, msg *state.FileObject) (int, error) {
	dir := path.Dir(msg.Path)
	for {
		fd, err := makeFile(t, msg, func(p *target.Plan) tracer.Call {
			return openat(p.PutString(dir), unix.O_RDWR|unix.O_TMPFILE|unix.O_EXCL, 0o600)
		})
		if dir == "/" || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return fd, err
		}
		dir = path.Dir(dir)
	}
}

// makeFile opens a file by one call, moves it out of the way of the image's
// descriptors and gives it its size.
func makeFile(t *target.Task, msg *state.FileObject, open func(*target.Plan) tracer.Call) (int, error) {
	first := t.Plan()
	first.NarrowFiles()
	fd := first.Open(open(first))
	first.WidenFiles()
	if err := first.Run(); err != nil {
		t.Table.Drop(fd)
		return 0, err
	}
	if msg.Named {
		if err := inMemory(t.Proc.Path(fmt.Sprintf("fd/%d", fd))); err != nil {
			return 0, err
		}
	}
	p := t.Plan()
	kept := p.DupAbove(fd, t.Table.Aside())
	p.Close(fd)
	if msg.Named { // it may have been there
		p.Call(tracer.Syscall(unix.SYS_FTRUNCATE, uint64(kept), 0))
	}
	p.Call(tracer.Syscall(unix.SYS_FTRUNCATE, uint64(kept), uint64(msg.Size)))
	if err := p.Run(); err != nil {
		return 0, err
	}
	t.Table.Keep(kept)
	return kept, nil
}

// inMemory refuses a named file that is not a regular one of a memory file
// system, which is all that the export carries by name. A forged image might
// name what is written to with the frame's rights and not the container's:
// /proc/self/mem, a sysctl, a device.
func inMemory(link string) error {
	var st unix.Stat_t
	var on unix.Statfs_t
	if err := errors.Join(unix.Stat(link, &st), unix.Statfs(link, &on)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || on.Type != unix.TMPFS_MAGIC && on.Type != unix.RAMFS_MAGIC {
		return errors.New("it is no regular file on a tmpfs here, and only such files are in an image by name: does the container's spec mount the tmpfs?")
	}
	return nil
}

// receiveContent writes one chunk into its file.
func (s *Subsystem) receiveContent(r *record.Record) error {
	id, offset := splitEntity(r.Entity)
	o := s.in.objects[id]
	if o == nil {
		return fmt.Errorf("%s: content of a file that was not announced", r.Header)
	}
	if n := int64(len(r.Payload)); n == 0 || offset > o.msg.Size || n > o.msg.Size-offset {
		return fmt.Errorf("%s: %d bytes at %d of a file of %d", r.Header, n, offset, o.msg.Size)
	}
	t, err := s.task(maker)
	if err != nil {
		return err
	}
	p := t.Plan()
	addr := p.Put(r.Payload)
	p.Expect(tracer.Syscall(unix.SYS_PWRITE64, uint64(o.fd), addr, uint64(len(r.Payload)), uint64(offset)), int64(len(r.Payload)))
	if err := p.Run(); err != nil {
		return fmt.Errorf("write %s: %w", o.msg.Path, err)
	}
	s.bytes.Add(uint64(len(r.Payload)))
	return nil
}

// finish gives a nameless file its owner, mode and seals when every description
// of it is open, and closes the descriptor by which it was made. Where the live
// spec's user could not give files away, owner and set-id bits stay that
// user's.
func (o *object) finish(t *target.Task, any bool) error {
	p := t.Plan()
	mode := o.msg.Mode
	if !any {
		mode &= 0o777
	} else {
		// A user namespace may lack the id, and some file systems have no owners.
		p.Quiet(tracer.Syscall(unix.SYS_FCHOWN, uint64(o.fd), uint64(o.msg.Uid), uint64(o.msg.Gid)))
	}
	p.Call(tracer.Syscall(unix.SYS_FCHMOD, uint64(o.fd), uint64(mode)))
	if o.msg.Memfd && o.msg.Seals != 0 {
		p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(o.fd), unix.F_ADD_SEALS, uint64(o.msg.Seals)))
	}
	p.Close(o.fd)
	if err := p.Run(); err != nil {
		return fmt.Errorf("finish the file %s: %w", o.msg.Path, err)
	}
	return nil
}
