// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// An object is a file whose content travels: one without a name, or one that a
// new container would not have by its name. It may be open, mapped, or both, in
// any number of processes. Whichever subsystem sees it first exports it under
// an id that all others use, too, and makes it in the container's first
// process; what comes later in the order of subsystems finds it there.

// fileID is what tells files apart while they exist.
type fileID struct{ dev, ino uint64 }

// objectIDs numbers the objects of an export.
type objectIDs struct {
	mu  sync.Mutex
	ids map[fileID]uint64
}

// Object returns the id of the object with this device and inode. first: nobody
// has asked before, and whoever did now exports it.
func (s *Source) Object(st *unix.Stat_t) (id uint64, first bool, err error) {
	o := &s.objects
	o.mu.Lock()
	defer o.mu.Unlock()
	key := fileID{st.Dev, st.Ino}
	if id, ok := o.ids[key]; ok {
		return id, false, nil
	}
	if o.ids == nil {
		o.ids = map[fileID]uint64{}
	}
	id = uint64(len(o.ids) + 1)
	if id > MaxObjects {
		return 0, false, fmt.Errorf("more than %d files without a name", MaxObjects)
	}
	o.ids[key] = id
	return id, true, nil
}

// Seals reads a memfd's seals through a description of our own.
func Seals(link string) (uint32, error) {
	f, err := os.Open(link)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return 0, fmt.Errorf("read the seals: %w", err)
	}
	return uint32(n), nil
}

const (
	// maxPath is PATH_MAX without the NUL byte.
	maxPath = 4095
	// maxMemfdName is the kernel's limit for memfd_create(2).
	maxMemfdName = 249
	// allSeals are F_SEAL_SEAL to F_SEAL_EXEC.
	allSeals = 0x3f
)

// DecodeObject reads and checks the description of an object.
func DecodeObject(r *record.Record) (*state.FileObject, error) {
	msg := &state.FileObject{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, err
	}
	switch {
	case r.Entity == 0 || r.Entity > MaxObjects:
		return nil, fmt.Errorf("files without a name are numbered from 1 to %d", MaxObjects)
	case msg.Size < 0 || msg.Size > MaxSize:
		return nil, fmt.Errorf("size %d is beyond the limit of %d", msg.Size, int64(MaxSize))
	case msg.Mode > 0o7777 || msg.Seals&^allSeals != 0:
		return nil, fmt.Errorf("mode %#o, seals %#x", msg.Mode, msg.Seals)
	case msg.Named:
		return nil, errors.New("a file of a memory file system by its name, as mig wrote before it carried such file systems whole: make the image anew")
	case msg.HugePageSize > 0 && (msg.Memfd || !ValidHugeSize(msg.HugePageSize) || uint64(msg.Size)%msg.HugePageSize != 0):
		return nil, fmt.Errorf("a memfd of %d bytes with huge pages of %d", msg.Size, msg.HugePageSize)
	case !IsMemfd(msg):
		return msg, CheckPath("path", msg.Path)
	case len(msg.Path) > maxMemfdName || strings.ContainsRune(msg.Path, 0):
		return nil, errors.New("a memfd's name is too long or not valid")
	}
	return msg, nil
}

// CheckPath accepts what open(2) can take and what the kernel can have shown:
// an absolute path without "." and ".." on it.
func CheckPath(what, p string) error {
	if len(p) == 0 || len(p) > maxPath || p[0] != '/' || strings.ContainsRune(p, 0) {
		return fmt.Errorf("%s of %d bytes is not an absolute path of 1 to %d bytes", what, len(p), maxPath)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "." || part == ".." {
			return fmt.Errorf("%s %q is not one that the kernel shows", what, p)
		}
	}
	return nil
}

// Object is a file under construction.
type Object struct {
	Msg *state.FileObject

	fd       int  // of the first process, until it is finished
	settled  bool // owner, mode and seals are final
	finished bool
}

// Object returns an object that has been made, nil if there is none with this
// id.
func (f *Frame) Object(id uint64) *Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects[id]
}

// MakeObject makes a file of which a record tells. The first process does it
// itself, so that its pages are charged to the container's cgroup and its owner
// is one of the container's.
func (f *Frame) MakeObject(r *record.Record) error {
	msg, err := DecodeObject(r)
	if err != nil {
		return err
	}
	if f.Object(r.Entity) != nil {
		return fmt.Errorf("%s: the file exists already", r.Header)
	}
	t, err := f.maker()
	if err != nil {
		return err
	}
	fd, err := makeObject(t, msg)
	if err != nil {
		return fmt.Errorf("make the file %s again: %w", msg.Path, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects == nil {
		f.objects = map[uint64]*Object{}
	}
	f.objects[r.Entity] = &Object{Msg: msg, fd: fd}
	return nil
}

// maker is the process that makes objects.
func (f *Frame) maker() (*Task, error) {
	t := f.Task(FirstTask)
	if t == nil || t.Traced == nil {
		return nil, fmt.Errorf("process %d: %w", FirstTask, ErrNotStopped)
	}
	return t, nil
}

// FillObject writes one piece of content into its file and returns how many
// bytes it has.
func (f *Frame) FillObject(r *record.Record) (uint64, error) {
	id, offset := SplitContentEntity(r.Entity)
	o := f.Object(id)
	if o == nil || o.settled {
		return 0, fmt.Errorf("%s: content of a file that was not announced", r.Header)
	}
	n := int64(len(r.Payload))
	if n == 0 || offset > o.Msg.Size || n > o.Msg.Size-offset {
		return 0, fmt.Errorf("%s: %d bytes at %d of a file of %d", r.Header, n, offset, o.Msg.Size)
	}
	t, err := f.maker()
	if err != nil {
		return 0, err
	}
	if huge := o.Msg.HugePageSize; huge > 0 {
		if err := t.WriteHuge(o.fd, huge, uint64(offset), r.Payload); err != nil {
			return 0, fmt.Errorf("write memfd %s: %w", o.Msg.Path, err)
		}
		return uint64(n), nil
	}
	p := t.Plan()
	p.Expect(tracer.Syscall(unix.SYS_PWRITE64, uint64(o.fd), p.Put(r.Payload), uint64(n), uint64(offset)), n)
	if err := p.Run(); err != nil {
		return 0, fmt.Errorf("write %s: %w", o.Msg.Path, err)
	}
	return uint64(n), nil
}

// Path is by which the process that made the object opens it again: in no other.
func (o *Object) Path() string { return fmt.Sprint(SelfFD, o.fd) }

// OpenObject opens an object for the engine, to hand it to a task (Accept). The
// caller closes it.
func (f *Frame) OpenObject(id uint64, write bool) (*os.File, error) {
	o := f.Object(id)
	if o == nil || o.finished {
		return nil, fmt.Errorf("the file, object %d, is not in the image", id)
	}
	t, err := f.maker()
	if err != nil {
		return nil, err
	}
	how := os.O_RDONLY
	if write {
		how = os.O_RDWR
	}
	return os.OpenFile(t.Proc.Path(fmt.Sprintf("fd/%d", o.fd)), how, 0)
}

// SettleExecutable gives an object that a process executes its mode and leaves
// no description of it that may write: the kernel executes no file that could
// be written to.
func (f *Frame) SettleExecutable(id uint64) error {
	o := f.Object(id)
	if o == nil {
		return fmt.Errorf("the executable, object %d, is not in the image", id)
	}
	t, err := f.maker()
	if err != nil || o.settled {
		return err
	}
	p := t.Plan()
	o.settle(p, f.Allowed.AnyUser())
	p.NarrowFiles()
	read := p.Open(openObject(p.PutString(o.Path()), unix.O_RDONLY, 0))
	p.WidenFiles()
	kept := p.DupAbove(read, t.Table.Aside())
	p.Close(read)
	p.Close(o.fd)
	if err := p.Run(); err != nil {
		return fmt.Errorf("finish the executable %s: %w", o.Msg.Path, err)
	}
	t.Table.Keep(kept)
	o.fd, o.settled = kept, true
	return nil
}

// FinishObject gives a file its owner, mode and seals when every description of
// it is open and every mapping made, and closes the descriptor by which it was
// made.
func (f *Frame) FinishObject(id uint64) error {
	o := f.Object(id)
	t, err := f.maker()
	if err != nil || o == nil || o.finished {
		return err
	}
	p := t.Plan()
	if !o.settled {
		o.settle(p, f.Allowed.AnyUser())
	}
	p.Close(o.fd)
	if err := p.Run(); err != nil {
		return fmt.Errorf("finish the file %s: %w", o.Msg.Path, err)
	}
	o.settled, o.finished = true, true
	return nil
}

// settle sets owner, mode and seals. Where the live spec's user could not give
// files away, owner and set-id bits stay that user's, who made the file: the
// frame's root may not touch it without CAP_FOWNER.
func (o *Object) settle(p *Plan, anyUser bool) {
	p.NarrowFiles()
	defer p.WidenFiles()
	mode := o.Msg.Mode
	if !anyUser {
		mode &= 0o777
	} else {
		// A user namespace may lack the id, and some file systems have no owners.
		p.Quiet(tracer.Syscall(unix.SYS_FCHOWN, uint64(o.fd), uint64(o.Msg.Uid), uint64(o.Msg.Gid)))
	}
	p.Call(tracer.Syscall(unix.SYS_FCHMOD, uint64(o.fd), uint64(mode)))
	if IsMemfd(o.Msg) && o.Msg.Seals != 0 {
		p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(o.fd), unix.F_ADD_SEALS, uint64(o.Msg.Seals)))
	}
}

// moveObjects takes the descriptors of objects out of the way of the image's,
// which were not known when the objects were made.
func (t *Task) moveObjects(p *Plan) {
	if t.ID != FirstTask {
		return
	}
	t.frame.mu.Lock()
	defer t.frame.mu.Unlock()
	for _, o := range t.frame.objects {
		if o.finished || !t.Table.wanted[o.fd] {
			continue
		}
		moved := p.DupAbove(o.fd, t.Table.Aside())
		p.Close(o.fd)
		o.fd = moved
		t.Table.Keep(moved)
	}
}
