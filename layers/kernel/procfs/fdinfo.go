// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
)

// FDInfo is /proc/PID/fdinfo/FD. The first four values exist for every file;
// which others do depends on its type (fs/proc/fd.c and the show_fdinfo
// functions named below). A type without lines of its own, such as an epoll
// with no targets, is only told by the descriptor's link.
type FDInfo struct {
	Pos   int64
	Flags uint32 // open(2)'s O_*, with O_CLOEXEC for the descriptor's flag
	MntID int    // mountinfo's ID; 0 for files without a mount
	Ino   uint64 // 0 before Linux 5.14

	Locks    []Lock        // held through this open file, or by the process on it
	Eventfd  *EventfdInfo  // eventfd(2)
	Epoll    []EpollTarget // epoll(7)
	Timerfd  *TimerfdInfo  // timerfd_create(2)
	Signalfd *uint64       // mask: bit n-1 is signal n
	Inotify  []InotifyWatch
	Fanotify *FanotifyInfo
	Pidfd    *PidfdInfo

	TTYIndex    int    // of a /dev/ptmx descriptor: its slave is pts/N; -1 for others
	SCMFds      uint64 // descriptors in flight in a unix socket's queue
	IOUring     bool   // io_uring_setup(2)
	Userfaultfd bool
	BPF         bool // a BPF map, program or link

	// Extra are the lines this package does not know, as printed, at most
	// maxExtra; ExtraDropped counts those beyond.
	Extra        []string
	ExtraDropped int
}

// maxExtra bounds Extra: io_uring prints a line for every registered file.
const maxExtra = 256

// ParseFDInfo reads /proc/PID/fdinfo/FD.
func ParseFDInfo(data []byte) (FDInfo, error) {
	p := newFDInfoParser()
	if err := eachLine("fdinfo", data, p.line); err != nil {
		return FDInfo{}, err
	}
	return p.finish("fdinfo")
}

type fdinfoParser struct {
	out  FDInfo
	seen uint8
}

// The lines every fdinfo has.
const (
	seenPos = 1 << iota
	seenFlags
	seenMnt
	seenAll = seenPos | seenFlags | seenMnt
)

func newFDInfoParser() fdinfoParser { return fdinfoParser{out: FDInfo{TTYIndex: -1}} }

func (p *fdinfoParser) finish(file string) (FDInfo, error) {
	if p.seen != seenAll {
		return FDInfo{}, parseError(file, 0, nil, errNoHeader)
	}
	if err := p.out.check(); err != nil {
		return FDInfo{}, parseError(file, 0, nil, err)
	}
	return p.out, nil
}

func (p *fdinfoParser) line(line []byte) error {
	key, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return p.out.structured(line)
	}
	c := cursor{rest: value}
	d := &p.out
	switch string(key) {
	case "pos":
		p.seen |= seenPos
		d.Pos = c.int64("position")
	case "flags":
		p.seen |= seenFlags
		d.Flags = uint32(c.number(c.field("flags"), 8, 32, "flags"))
	case "mnt_id":
		p.seen |= seenMnt
		d.MntID = c.int("mount id")
	case "ino":
		d.Ino = c.dec("inode")
	case "lock":
		l, err := parseLock(value)
		d.Locks = append(d.Locks, l)
		return err
	case "tty-index":
		d.TTYIndex = c.int("index")
	case "scm_fds":
		d.SCMFds = c.dec("count")
	default:
		if d.event(key, &c) || d.timer(key, &c) || d.process(key, &c) {
			break
		}
		return d.structured(line)
	}
	return c.end()
}

// event takes eventfd's and signalfd's lines (fs/eventfd.c, fs/signalfd.c).
func (d *FDInfo) event(key []byte, c *cursor) bool {
	switch string(key) {
	case "eventfd-count":
		d.eventfd().Count = c.hex("count")
	case "eventfd-id":
		d.eventfd().ID = c.int("id")
	case "eventfd-semaphore":
		d.eventfd().Semaphore = c.dec("flag") != 0
	case "sigmask":
		mask := c.hex("mask")
		d.Signalfd = &mask
	default:
		return false
	}
	return true
}

// process takes pidfd's lines (fs/pidfs.c).
func (d *FDInfo) process(key []byte, c *cursor) bool {
	switch string(key) {
	case "Pid":
		d.pidfd().Pid = c.int("pid")
	case "NSpid":
		d.pidfd().NSpid = c.list("pid")
	default:
		return false
	}
	return true
}

func (d *FDInfo) eventfd() *EventfdInfo {
	if d.Eventfd == nil {
		d.Eventfd = &EventfdInfo{ID: -1}
	}
	return d.Eventfd
}

func (d *FDInfo) pidfd() *PidfdInfo {
	if d.Pidfd == nil {
		d.Pidfd = &PidfdInfo{}
	}
	return d.Pidfd
}

// structured takes lines of several values, and everything unknown.
func (d *FDInfo) structured(line []byte) error {
	switch {
	case bytes.HasPrefix(line, []byte("tfd:")):
		t, err := parseEpollTarget(line)
		d.Epoll = append(d.Epoll, t)
		return err
	case bytes.HasPrefix(line, []byte("inotify ")):
		w, err := parseInotifyWatch(line)
		d.Inotify = append(d.Inotify, w)
		return err
	case bytes.HasPrefix(line, []byte("fanotify ")):
		return d.fanotify(line)
	}
	d.mark(line)
	if len(d.Extra) >= maxExtra {
		d.ExtraDropped++
		return nil
	}
	d.Extra = append(d.Extra, string(line))
	return nil
}

// mark recognises types of which only the presence matters.
func (d *FDInfo) mark(line []byte) {
	key, _, _ := bytes.Cut(line, []byte{':'})
	switch string(key) {
	case "SqMask": // io_uring/fdinfo.c
		d.IOUring = true
	case "API": // fs/userfaultfd.c
		d.Userfaultfd = true
	case "map_type", "prog_type", "link_type": // kernel/bpf/syscall.c
		d.BPF = true
	}
}
