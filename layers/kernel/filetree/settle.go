// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// settle gives a directory what its entry says. One that was removed later in
// the pass has none.
func (im *Importer) settle(d *directory) error {
	path := string(d.entry.Path)
	fd, err := openBeneath(im.root, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return im.attributes(fd, d.entry, d.made)
}

// attributes gives the file behind fd, which may be an O_PATH descriptor, owner,
// attributes, mode, times and flags, in this order: a change of the owner takes
// set-id bits and file capabilities away, and nothing may follow the times.
// What is as it should be is left alone. made: the file is new.
func (im *Importer) attributes(fd int, e *state.TreeEntry, made bool) error {
	uid, gid, mode, foreign, err := im.p.owner(e.Uid, e.Gid, e.Mode&0o7777)
	if err != nil {
		return err
	}
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err != nil {
		return err
	}
	if foreign && !im.p.Foreign && !made && st.Uid != uid {
		// What the container's user could not have given away, it did not make:
		// the runtime did, here too.
		return setTimes(fd, &st, e)
	}
	link := e.Mode&unix.S_IFMT == unix.S_IFLNK
	at := procFD(fd)
	if st.Uid != uid || st.Gid != gid {
		if err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if err := im.extended(at, link, foreign, e); err != nil {
		return err
	}
	if !link {
		if err := statAt(fd, "", &st); err != nil {
			return err
		}
		if uint32(st.Mode)&0o7777 != mode {
			if err := unix.Chmod(at, mode); err != nil {
				return os.NewSyscallError("chmod", err)
			}
		}
	}
	if err := setTimes(fd, &st, e); err != nil {
		return err
	}
	return im.flags(fd, e)
}

// extended makes the attributes of the carried kinds those of the entry.
func (im *Importer) extended(at string, link, foreign bool, e *state.TreeEntry) error {
	if link {
		// A symbolic link has none that are carried but trusted ones, and no
		// call sets those through its descriptor.
		if len(e.Attribute) > 0 {
			return errors.New("extended attributes of a symbolic link")
		}
		return nil
	}
	have, err := namesBehind(at)
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for _, a := range e.Attribute {
		want[string(a.Name)] = true
	}
	for _, name := range have {
		if want[name] || fateOf(name) != fateCarried {
			continue
		}
		if err := unix.Removexattr(at, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return os.NewSyscallError("removexattr "+name, err)
		}
	}
	for _, a := range e.Attribute {
		if foreign && string(a.Name) == attrCapability {
			continue
		}
		if err := im.setAttribute(at, a); err != nil {
			return fmt.Errorf("extended attribute %s: %w", a.Name, err)
		}
	}
	return nil
}

// namesBehind lists attributes of the file to which a magic link leads.
func namesBehind(at string) ([]string, error) {
	buf := make([]byte, 256)
	n, err := unix.Listxattr(at, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxAttributes)
		n, err = unix.Listxattr(at, buf)
	}
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("listxattr", err)
	}
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }), nil
}

func (im *Importer) setAttribute(at string, a *state.FileAttribute) error {
	name := string(a.Name)
	if strings.HasPrefix(name, trustedPrefix) && !im.p.Trusted {
		return errors.New("the container's spec does not let it set attributes of this kind")
	}
	value, err := translate(name, a.Value, im.p.IDs, outwards)
	if err != nil {
		return err
	}
	return os.NewSyscallError("setxattr", unix.Setxattr(at, name, value, 0))
}

// setTimes sets both times to the nanosecond.
func setTimes(fd int, st *unix.Statx_t, e *state.TreeEntry) error {
	if st.Mtime.Sec == e.Mtime.Seconds && st.Mtime.Nsec == e.Mtime.Nanoseconds {
		return nil // and the atime is of no matter
	}
	times := []unix.Timespec{
		{Sec: e.Atime.Seconds, Nsec: int64(e.Atime.Nanoseconds)},
		{Sec: e.Mtime.Seconds, Nsec: int64(e.Mtime.Nanoseconds)},
	}
	// With an empty path, Linux before 5.8 has no such call.
	err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	return os.NewSyscallError("utimensat", err)
}

// flags sets those that keep the file from being changed, last.
func (im *Importer) flags(fd int, e *state.TreeEntry) error {
	kind := e.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	if e.Flags == 0 {
		return nil // a new file has none, and unfreeze took them away
	}
	if e.Flags&(flagImmutable|flagAppend) != 0 && !im.p.Flags {
		return errors.New("the container's spec does not let it make files immutable or append-only (CAP_LINUX_IMMUTABLE)")
	}
	have, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("the file system has no file flags: %w", err)
	}
	return os.NewSyscallError("ioctl(FS_IOC_SETFLAGS)", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, have&^carriedFlags|int(e.Flags)))
}

// unfreeze lets a file be changed that an earlier pass made immutable.
func unfreeze(dir int, name string, st *unix.Statx_t) error {
	if st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) == 0 {
		return nil
	}
	kind := fileType(st)
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	have, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return os.NewSyscallError("ioctl(FS_IOC_GETFLAGS)", err)
	}
	return os.NewSyscallError("ioctl(FS_IOC_SETFLAGS)", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, have&^carriedFlags))
}
