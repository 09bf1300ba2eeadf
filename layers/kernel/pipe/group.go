// SPDX-License-Identifier: Apache-2.0

package pipe

import (
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// inode tells pipes apart while they exist.
type inode struct{ dev, ino uint64 }

// end is a descriptor that leads to a pipe.
type end struct {
	pid  int
	proc *target.Process // nil while the tasks run
	d    *target.Descriptor
}

// group is a pipe as its descriptors show it.
type group struct {
	id   inode
	ends []end
	// fifo: the file system has a name for it; the file subsystem opens it.
	fifo bool
	// stdin: it is the container's standard input, whose other end is the
	// shim's.
	stdin bool
}

// reader and writer return an end that can do that, nil if there is none.
func (g *group) reader() *end { return g.find((*target.Descriptor).Readable) }
func (g *group) writer() *end { return g.find((*target.Descriptor).Writable) }

func (g *group) find(can func(*target.Descriptor) bool) *end {
	for i := range g.ends {
		if can(g.ends[i].d) {
			return &g.ends[i]
		}
	}
	return nil
}

// packets reports whether a writer is in packet mode.
func (g *group) packets() bool {
	for _, e := range g.ends {
		if e.d.Writable() && e.d.Flags&unix.O_DIRECT != 0 {
			return true
		}
	}
	return false
}

// groups pairs the ends of pipes by their inode, in the order of their first
// appearance. The pre-flight and the export see pipes through it alone.
type groups struct {
	list []*group
	by   map[inode]*group
}

// add takes a descriptor if it leads to something of ours.
func (gs *groups) add(e end) {
	d := e.d
	fifo := d.Stat.Mode&unix.S_IFMT == unix.S_IFIFO && d.Flags&unix.O_PATH == 0
	named := fifo && (d.Link.Kind == procfs.FDPath || d.Link.Kind == procfs.FDDevice)
	switch {
	case !fifo:
		return
	case d.Stdio >= 0 && (d.Stdio != 0 || !d.Readable()):
		return // output of the container: what is in it is the shim's already
	case d.Stdio < 0 && !named && d.Owner() != target.OwnerPipe:
		return
	}
	id := inode{d.Stat.Dev, d.Stat.Ino}
	g := gs.by[id]
	if g == nil {
		if gs.by == nil {
			gs.by = map[inode]*group{}
		}
		g = &group{id: id, fifo: named, stdin: d.Stdio == 0}
		gs.by[id] = g
		gs.list = append(gs.list, g)
	}
	g.ends = append(g.ends, e)
}

// outside reports what is wrong with a pipe of which only one end is in the
// container: fd leads to that end. A pipe whose other end is closed for good
// (the reader sees the end of the stream, the writer EPIPE) is all right.
func (g *group) outside(fd int) (*refusal, error) {
	read, write := g.reader() != nil, g.writer() != nil
	if g.fifo || g.stdin || read && write {
		return nil, nil
	}
	pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	if _, err := unix.Poll(pfd, 0); err != nil {
		return nil, err
	}
	closed, other := int16(unix.POLLHUP), "writing"
	if write {
		closed, other = unix.POLLERR, "reading"
	}
	if pfd[0].Revents&closed != 0 {
		return nil, nil
	}
	return &refusal{
		what: "pipe", why: "its " + other + " end is held by a process outside of the container",
		remedy: "end the exec session or the program outside whose standard stream it is",
	}, nil
}

// ofExec: everybody who has the pipe was started by exec, or by somebody who
// was: a runtime gives such a process a session of its own. Their client is not
// there when they are restored.
func (g *group) ofExec(init int) (bool, error) {
	home, err := procfs.Host().Process(init).Stat()
	if err != nil {
		return false, err
	}
	for _, e := range g.ends {
		st, err := procfs.Host().Process(e.pid).Stat()
		if err != nil {
			return false, err
		}
		if e.pid == init || st.Session == home.Session {
			return false, nil
		}
	}
	return true, nil
}

// abandonment tells what becomes of a pipe whose other end is a client's.
func abandonment(r *refusal) *refusal {
	return &refusal{r.what, r.why + ", as that of a session of exec by its client: in a restored container its readers find its end, and what is written to it is lost", "leave the session"}
}

// refusal is something that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }
