// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// refusal is something that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

// unsupported are the kinds of description that no subsystem carries.
var unsupported = map[procfs.FDKind]refusal{
	procfs.FDIOUring:     {"io_uring", "its rings and requests in flight cannot be read from outside", "run the application without io_uring"},
	procfs.FDPerf:        {"perf event", "it counts on this host's processor", "stop profiling and try again"},
	procfs.FDUserfaultfd: {"userfaultfd", "the faults in flight cannot be read from outside", ""},
	procfs.FDBPF:         {"BPF object", "programs and maps belong to this host's kernel", ""},
	procfs.FDSeccomp:     {"seccomp listener", "the system calls it holds cannot be moved", "stop the supervising program and try again"},
	procfs.FDNamespace:   {"namespace", "the namespace is not part of the container's image", "close the descriptor"},
}

// devices are the character devices that keep no state behind a description.
var devices = map[uint64]bool{
	unix.Mkdev(1, 3): true, // null
	unix.Mkdev(1, 5): true, // zero
	unix.Mkdev(1, 7): true, // full
	unix.Mkdev(1, 8): true, // random
	unix.Mkdev(1, 9): true, // urandom
}

// form is what classify found out beside the message.
type form struct {
	msg *state.OpenFile
	// object is set for a file whose content travels.
	object *state.FileObject
}

// classify turns a descriptor into what a restore needs, or into a *refusal. It
// looks at /proc and at the container's file system but not at the process, so
// the pre-flight and the export say the same.
func (l *looker) classify(d *target.Descriptor) (form, error) {
	msg := &state.OpenFile{
		// See exportOwner. A lease sets O_ASYNC by itself, too.
		Flags: uint32(d.Flags &^ unix.O_ASYNC), Offset: d.Info.Pos, Mode: d.Stat.Mode, Size: d.Stat.Size,
	}
	if r, ok := unsupported[d.Link.Kind]; ok {
		if d.Link.Name != "" && d.Link.Kind != procfs.FDIOUring {
			r.what += " " + d.Link.Name
		}
		return form{}, &r
	}
	switch {
	case d.Stdio >= 0 && d.Flags&unix.O_PATH == 0:
		msg.Type, msg.Stdio, msg.Offset, msg.Size = state.FileType_FILE_TYPE_STDIO, uint32(d.Stdio), 0, 0
		return form{msg: msg}, nil
	case d.Link.Kind == procfs.FDPath || d.Link.Kind == procfs.FDDevice:
		return l.named(d, msg)
	case d.Link.Kind == procfs.FDMemfd && d.Flags&unix.O_PATH == 0:
		return l.memfd(d, msg)
	}
	return form{}, &refusal{describeLink(d), "no subsystem carries it", ""}
}

// named classifies what the link calls by a path.
func (l *looker) named(d *target.Descriptor, msg *state.OpenFile) (form, error) {
	if d.Flags&unix.O_PATH == 0 && d.Stat.Mode&unix.S_IFMT == unix.S_IFREG && l.fsType(d) == mqueueMagic {
		return queue(d, msg)
	}
	path, gone, err := l.pathOf(d)
	if err != nil {
		return form{}, err
	}
	msg.Path = path
	if d.Flags&unix.O_PATH != 0 && !gone {
		msg.Type = state.FileType_FILE_TYPE_PATH
		return form{msg: msg}, nil
	}
	what := describeLink(d)
	if msg.Pseudo = l.pseudo(d); gone && (msg.Pseudo || d.Stat.Mode&unix.S_IFMT != unix.S_IFREG || d.Flags&unix.O_PATH != 0) {
		return form{}, &refusal{what, "it has been removed, and only regular files can be carried without a name", ""}
	}
	switch d.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return l.regular(d, msg, gone)
	case unix.S_IFDIR:
		msg.Type = state.FileType_FILE_TYPE_DIRECTORY
	case unix.S_IFIFO:
		msg.Type = state.FileType_FILE_TYPE_FIFO
	case unix.S_IFCHR:
		msg.Type, msg.Device = state.FileType_FILE_TYPE_CHARACTER, d.Stat.Rdev
		if !devices[d.Stat.Rdev] {
			return form{}, deviceRefusal(d)
		}
	default:
		return form{}, &refusal{what, fmt.Sprintf("files of type %#o are not carried", d.Stat.Mode&unix.S_IFMT), ""}
	}
	return form{msg: msg}, nil
}

// mqueueMagic is the file system of POSIX message queues, MQUEUE_MAGIC of
// ipc/mqueue.c.
const mqueueMagic = 0x19800202

// queue classifies a POSIX message queue, which the subsystem ipc makes again.
func queue(d *target.Descriptor, msg *state.OpenFile) (form, error) {
	if d.Stat.Nlink == 0 {
		return form{}, &refusal{"POSIX message queue " + d.Link.Path, "it has been removed (mq_unlink(3)), and queues without a name are not carried", "close it"}
	}
	// A descriptor of the file system's own root shows the path, of a mount
	// another one in front of it.
	msg.Type, msg.Path, msg.Offset, msg.Size = state.FileType_FILE_TYPE_QUEUE, "/"+filepath.Base(d.Link.Path), 0, 0
	return form{msg: msg}, nil
}

// deviceRefusal names a device.
func deviceRefusal(d *target.Descriptor) *refusal {
	major, minor := unix.Major(d.Stat.Rdev), unix.Minor(d.Stat.Rdev)
	r := &refusal{what: fmt.Sprintf("device %s (%d:%d)", d.Link.Path, major, minor), why: "its state is in the driver"}
	const ttys, aux = 4, 5
	if major == ttys || major == aux {
		r.why = "it is a terminal of the host"
		r.remedy = "close it"
	}
	return r
}

// regular decides whether a file's content travels: it does where there is no
// path any more.
func (l *looker) regular(d *target.Descriptor, msg *state.OpenFile, gone bool) (form, error) {
	if l.hugetlb(d) {
		switch why, err := target.RefuseHugeFile(&d.Stat); {
		case err != nil:
			return form{}, err
		case why != "":
			return form{}, &refusal{describeLink(d), why, ""}
		}
	}
	if !gone {
		msg.Type = state.FileType_FILE_TYPE_REGULAR
		return form{msg: msg}, nil
	}
	if d.Stat.Nlink > 0 {
		return form{}, &refusal{describeLink(d), "its name was removed while another hard link, which cannot be found, remains", "remove the other link or close the file"}
	}
	obj := &state.FileObject{Path: msg.Path, Size: d.Stat.Size, Mode: d.Stat.Mode & 0o7777}
	return l.object(d, msg, obj)
}

// memfd classifies a memfd_create(2) file.
func (l *looker) memfd(d *target.Descriptor, msg *state.OpenFile) (form, error) {
	if m := l.mount(d.Info.MntID); m != nil {
		// A removed file of the root directory that is called "memfd:...": a
		// true memfd is on a mount that no task has.
		copied := *d
		copied.Link = procfs.FDLink{Kind: procfs.FDPath, Path: "/memfd:" + d.Link.Name, Deleted: true}
		return l.named(&copied, msg)
	}
	obj := &state.FileObject{Path: d.Link.Name, Memfd: true, Size: d.Stat.Size, Mode: d.Stat.Mode & 0o7777}
	if err := target.SetHuge(obj, &d.Stat); err != nil {
		return form{}, err
	}
	if obj.HugePageSize > 0 && uint64(obj.Size)%obj.HugePageSize != 0 {
		return form{}, &refusal{describeLink(d), fmt.Sprintf("its size of %d bytes is not one of whole huge pages", obj.Size), ""}
	}
	return l.object(d, msg, obj)
}

func (l *looker) object(d *target.Descriptor, msg *state.OpenFile, obj *state.FileObject) (form, error) {
	var err error
	if obj.Uid, obj.Gid, err = l.owner(d); err != nil {
		return form{}, err
	}
	msg.Type, msg.Path = state.FileType_FILE_TYPE_OBJECT, ""
	return form{msg: msg, object: obj}, nil
}

// describeLink names a description for a person.
func describeLink(d *target.Descriptor) string {
	switch {
	case d.Link.Path != "":
		return d.Link.Kind.String() + " " + d.Link.Path
	case d.Link.Name != "":
		return d.Link.Kind.String() + " " + d.Link.Name
	}
	return d.Link.Kind.String()
}
