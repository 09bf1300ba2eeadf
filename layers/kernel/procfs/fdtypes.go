// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

var errNoHeader = errors.New("pos, flags or mnt_id is missing")

// EventfdInfo is the state of an eventfd(2).
type EventfdInfo struct {
	Count     uint64
	ID        int  // unique in the kernel, the sharing identity; -1 before 5.2
	Semaphore bool // EFD_SEMAPHORE; not shown before 6.5
}

// EpollTarget is one registration of an epoll(7) instance (fs/eventpoll.c).
// FD is the number at registration: the descriptor may be closed or reused
// since, so check it with KCMP_EPOLL_TFD or by Ino and Dev.
type EpollTarget struct {
	FD     int
	Events uint32 // EPOLL*; a fired EPOLLONESHOT keeps only the flag bits
	Data   uint64
	Pos    int64
	Ino    uint64
	Dev    Dev
}

// TimerfdInfo is the state of a timerfd (fs/timerfd.c).
type TimerfdInfo struct {
	ClockID      int
	Ticks        uint64 // expirations not read yet
	SettimeFlags uint32 // TFD_TIMER_* of timerfd_settime(2)
	Value        Timespec
	Interval     Timespec

	seen uint8
}

// Timespec is seconds and nanoseconds. For a timerfd the value is what is
// left until it expires, also if it was armed with an absolute time.
type Timespec struct {
	Sec, Nsec int64
}

// InotifyWatch is one watch (fs/notify/fdinfo.c).
type InotifyWatch struct {
	WD          int
	Ino         uint64
	Dev         Dev
	Mask        uint32 // IN_*
	IgnoredMask uint32
	Handle      *FileHandle // nil: the file system encodes none
}

// FileHandle is what open_by_handle_at(2) takes.
type FileHandle struct {
	Type   int
	Handle []byte
}

// FanotifyInfo is a fanotify(7) group.
type FanotifyInfo struct {
	Flags, EventFlags uint32
	Marks             []FanotifyMark
}

// FanotifyMark is one mark: on an inode (Ino, Dev), a mount (MntID), a file
// system (Dev only) or a mount namespace (MntNS, Linux 6.14).
type FanotifyMark struct {
	Ino                       uint64
	Dev                       Dev
	MntID                     int
	MntNS                     uint64
	MFlags, Mask, IgnoredMask uint32
	Handle                    *FileHandle
}

// PidfdInfo is what a pidfd refers to.
type PidfdInfo struct {
	Pid   int   // -1: exited and reaped; 0: outside this pid namespace
	NSpid []int // outermost first; empty if dead
}

// timer takes timerfd's lines.
func (d *FDInfo) timer(key []byte, c *cursor) bool {
	switch string(key) {
	case "clockid":
		d.timerfd(0).ClockID = c.int("clock")
	case "ticks":
		d.timerfd(1).Ticks = c.dec("count")
	case "settime flags":
		d.timerfd(2).SettimeFlags = uint32(c.number(c.field("flags"), 8, 32, "flags"))
	case "it_value":
		d.timerfd(3).Value = c.timespec()
	case "it_interval":
		d.timerfd(4).Interval = c.timespec()
	default:
		return false
	}
	return true
}

// timerfd allocates the timer and notes which of its five lines came.
func (d *FDInfo) timerfd(line int) *TimerfdInfo {
	if d.Timerfd == nil {
		d.Timerfd = &TimerfdInfo{}
	}
	d.Timerfd.seen |= 1 << line
	return d.Timerfd
}

// check finds types of which only a part was there.
func (d *FDInfo) check() error {
	const allTimerLines = 1<<5 - 1
	if d.Timerfd != nil && d.Timerfd.seen != allTimerLines {
		return errors.New("a timerfd's lines are incomplete")
	}
	return nil
}

// timespec reads "(99, 999919037)".
func (c *cursor) timespec() Timespec {
	c.skip()
	c.literal("(")
	sec := c.signed(c.until(',', "seconds"), 64, "seconds")
	c.skip()
	nsec := c.signed(c.until(')', "nanoseconds"), 64, "nanoseconds")
	return Timespec{sec, nsec}
}

// parseEpollTarget reads "tfd: 6 events: 19 data: 6  pos:0 ino:40e sdev:10".
// Kernels before 4.14 end after data.
func parseEpollTarget(line []byte) (EpollTarget, error) {
	c := cursor{rest: line}
	var t EpollTarget
	c.literal("tfd:")
	t.FD = c.int("tfd")
	c.skip()
	c.literal("events:")
	t.Events = c.hex32("events")
	c.skip()
	c.literal("data:")
	t.Data = c.hex("data")
	for c.skip(); c.err == nil && len(c.rest) > 0; c.skip() {
		key, value, _ := bytes.Cut(c.field("pair"), []byte{':'})
		switch string(key) {
		case "pos":
			t.Pos = c.signed(value, 64, "pos")
		case "ino":
			t.Ino = c.number(value, 16, 64, "ino")
		case "sdev":
			t.Dev = KernelDev(uint32(c.number(value, 16, 32, "sdev")))
		default:
			return t, fmt.Errorf("unknown key %q", key)
		}
	}
	return t, c.err
}
