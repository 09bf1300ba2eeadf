// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// maxFile bounds files that are read whole. Long files (maps, smaps,
// mountinfo, net/*) are streamed line by line instead and have no bound.
const maxFile = 16 << 20

// keepBuffer is the largest buffer that goes back into the pool.
const keepBuffer = 1 << 20

// FS is a mounted proc file system. It is a small value, safe for concurrent
// use. The zero FS is not usable: call Host, HostAt or New.
type FS struct {
	fsys  fs.FS
	root  string // set: read directly below this directory, no fs.FS in between
	still *still // see Task.Still, usually nil
}

// Host is the proc file system of this process's pid namespace, at /proc.
func Host() FS { return HostAt("/proc") }

// HostAt is a proc file system mounted at dir, for example a container's.
func HostAt(dir string) FS { return FS{root: strings.TrimRight(dir, "/")} }

// New reads from fsys, whose root stands for /proc. Links (fd, ns, exe) need
// fsys to implement fs.ReadLinkFS.
func New(fsys fs.FS) FS { return FS{fsys: fsys, root: ""} }

// path is how errors name a file.
func (f FS) path(name string) string {
	if f.fsys != nil {
		return "/proc/" + name
	}
	return f.root + "/" + name
}

// open opens name for reading; the caller closes.
func (f FS) open(name string) (io.ReadCloser, error) {
	if f.fsys != nil {
		return f.fsys.Open(name)
	}
	return openHost(f.path(name))
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

func putBuffer(p *[]byte) {
	if cap(*p) <= keepBuffer {
		buffers.Put(p)
	}
}

// read hands the whole of name to parse. The bytes are only valid inside.
func (f FS) read(name string, parse func([]byte) error) error {
	r, err := f.open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	p := buffers.Get().(*[]byte)
	defer putBuffer(p)
	data, err := readAll(r, (*p)[:cap(*p)])
	*p = data[:cap(data)]
	if err != nil {
		return fmt.Errorf("read %s: %w", f.path(name), err)
	}
	return f.name(name, parse(data))
}

// stream hands name to fn line by line.
func (f FS) stream(name string, fn lineFunc) error {
	r, err := f.open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	p := buffers.Get().(*[]byte)
	defer putBuffer(p)
	*p, err = streamLines(f.path(name), r, *p, fn)
	return err
}

// name puts the path that was read into a parser's error.
func (f FS) name(name string, err error) error {
	var pe *ParseError
	if errors.As(err, &pe) {
		pe.File = f.path(name)
	}
	return err
}

// readLink returns the target of the link name.
func (f FS) readLink(name string) (string, error) {
	if f.fsys != nil {
		return fs.ReadLink(f.fsys, name)
	}
	return os.Readlink(f.path(name))
}

// numbers lists the entries of directory name that are decimal numbers, in
// ascending order as far as the kernel lists them so (it does for tasks and
// descriptors).
func (f FS) numbers(name string) ([]int, error) {
	names, err := f.names(name)
	if err != nil {
		return nil, err
	}
	out := make([]int, 0, len(names))
	for _, s := range names {
		if n, err := strconv.Atoi(s); err == nil && n >= 0 {
			out = append(out, n)
		}
	}
	return out, nil
}

// names lists a directory without a stat of every entry.
func (f FS) names(name string) ([]string, error) {
	if f.fsys != nil {
		entries, err := fs.ReadDir(f.fsys, name)
		out := make([]string, 0, len(entries))
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out, err
	}
	d, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// readAll reads to the end into buf, growing it up to maxFile.
func readAll(r io.Reader, buf []byte) ([]byte, error) {
	have := 0
	for {
		n, err := r.Read(buf[have:])
		have += n
		if errors.Is(err, io.EOF) {
			return buf[:have], nil
		}
		if err != nil {
			return buf[:have], err
		}
		if have < len(buf) {
			continue
		}
		if len(buf) >= maxFile {
			return buf[:have], ErrTooLarge
		}
		buf = append(buf, make([]byte, len(buf))...)
	}
}

// hostFile is a descriptor without os.File's poller and finalizer, which cost
// more than the read of a small proc file.
type hostFile struct {
	fd int
}

func openHost(path string) (io.ReadCloser, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return hostFile{fd}, nil
	}
}

func (h hostFile) Read(p []byte) (int, error) {
	for {
		n, err := syscall.Read(h.fd, p)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (h hostFile) Close() error { return syscall.Close(h.fd) }
