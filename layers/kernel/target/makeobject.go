// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// makeObject makes the file, empty and of its size, and returns the task's
// descriptor of it.
func makeObject(t *Task, msg *state.FileObject) (int, error) {
	if msg.HugePageSize > 0 {
		if err := CheckHugeSize(msg.HugePageSize); err != nil {
			return 0, err
		}
	}
	if IsMemfd(msg) {
		return makeFile(t, msg, func(p *Plan) tracer.Call {
			return tracer.Syscall(unix.SYS_MEMFD_CREATE, p.PutString(msg.Path), uint64(memfdFlags(msg)))
		})
	}
	return makeUnnamed(t, msg)
}

// memfdFlags: seals come last, but for the one that says that the file never
// was executable: a system may forbid the others (vm.memfd_noexec).
func memfdFlags(msg *state.FileObject) int {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if msg.HugePageSize > 0 {
		flags |= unix.MFD_HUGETLB | HugeFlag(msg.HugePageSize)
	}
	if msg.Mode&0o111 == 0 && msg.Seals&unix.F_SEAL_EXEC != 0 {
		return flags | unix.MFD_NOEXEC_SEAL
	}
	return flags | unix.MFD_EXEC
}

func openObject(path uint64, flags, mode int) tracer.Call {
	cwd := int64(unix.AT_FDCWD)
	return tracer.Syscall(unix.SYS_OPENAT, uint64(cwd), path, uint64(flags|unix.O_CLOEXEC), uint64(mode))
}

// makeUnnamed makes a file without a name in the directory where it had one,
// or in the nearest one above that exists. Where the container's user may make
// none, as one that runs a library of the root's file system, which was replaced,
// it is memory instead.
func makeUnnamed(t *Task, msg *state.FileObject) (int, error) {
	dir := path.Dir(msg.Path)
	for {
		fd, err := makeFile(t, msg, func(p *Plan) tracer.Call {
			return openObject(p.PutString(dir), unix.O_RDWR|unix.O_TMPFILE|unix.O_EXCL, 0o600)
		})
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS), errors.Is(err, unix.EOPNOTSUPP):
			return makeFile(t, msg, func(p *Plan) tracer.Call {
				name := path.Base(msg.Path)
				return tracer.Syscall(unix.SYS_MEMFD_CREATE, p.PutString(name[:min(len(name), maxMemfdName)]), unix.MFD_CLOEXEC|unix.MFD_EXEC)
			})
		case dir == "/" || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
			return 0, err
		}
		dir = path.Dir(dir)
	}
}

// makeFile opens a file by one call, moves it out of the way of the image's
// descriptors and gives it its size.
func makeFile(t *Task, msg *state.FileObject, open func(*Plan) tracer.Call) (int, error) {
	first := t.Plan()
	first.NarrowFiles()
	fd := first.Open(open(first))
	first.WidenFiles()
	if err := first.Run(); err != nil {
		t.Table.Drop(fd)
		return 0, err
	}
	p := t.Plan()
	kept := p.DupAbove(fd, t.Table.Aside())
	p.Close(fd)
	p.Call(tracer.Syscall(unix.SYS_FTRUNCATE, uint64(kept), uint64(msg.Size)))
	if err := p.Run(); err != nil {
		return 0, err
	}
	t.Table.Keep(kept)
	return kept, nil
}
