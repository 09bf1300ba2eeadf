// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"fmt"
	"math"
)

// LockClass says who owns a lock and which call made it.
type LockClass uint8

// The lock classes of fs/locks.c, lock_get_status.
const (
	LockPOSIX   LockClass = iota + 1 // fcntl F_SETLK: owned by the process
	LockFlock                        // flock: owned by the open file
	LockOFD                          // fcntl F_OFD_SETLK: owned by the open file
	LockLease                        // fcntl F_SETLEASE
	LockDeleg                        // NFS delegation
	LockAccess                       // a lock manager's test
	LockUnknown                      // printed as UNKNOWN
)

var lockClasses = map[string]LockClass{"POSIX": LockPOSIX, "FLOCK": LockFlock, "OFDLCK": LockOFD,
	"LEASE": LockLease, "DELEG": LockDeleg, "ACCESS": LockAccess, "UNKNOWN": LockUnknown}

// LockEOF as Lock.End: to the end of the file, however long it grows.
const LockEOF = math.MaxInt64

// Lock is one line of /proc/locks, or a "lock:" line of fdinfo.
type Lock struct {
	ID    int64
	Depth int // 0: held; n: waiting, n-th in a chain of waiters
	Class LockClass
	// Mode is ADVISORY for byte-range locks and flock (MANDATORY on old
	// kernels), for leases ACTIVE, BREAKING or BREAKER.
	Mode string
	// Access is READ, WRITE or UNLCK (a lease on its way out). Two combined
	// modes of old kernels, RW and NONE, are passed on.
	Access string
	// Pid of the owner, or of the task that made an flock or a lease; -1 for
	// OFD locks; 0 if outside the proc mount's pid namespace or dead.
	Pid   int
	Dev   Dev // of the super block, which on btrfs and overlay is not st_dev
	Inode uint64
	Start int64
	End   int64 // inclusive, or LockEOF
}

// ParseLocks reads /proc/locks.
func ParseLocks(data []byte) ([]Lock, error) {
	var out []Lock
	err := eachLine("locks", data, func(line []byte) error {
		l, err := parseLock(line)
		out = append(out, l)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// parseLock reads "1: POSIX  ADVISORY  WRITE 8364 fe:00:9980104 0 4".
func parseLock(line []byte) (Lock, error) {
	var l Lock
	c := cursor{rest: line}
	c.skip()
	l.ID = c.signed(c.until(':', "id"), 64, "id")
	class := c.lockClass(&l)
	if l.Class = lockClasses[string(class)]; l.Class == 0 && c.err == nil {
		c.err = fmt.Errorf("unknown lock class %q", class)
	}
	l.Mode = string(c.field("mode"))
	l.Access = string(c.field("access"))
	l.Pid = c.int("pid")
	l.Dev, l.Inode = c.lockFile()
	l.Start = c.int64("start")
	if end := c.field("end"); string(end) == "EOF" {
		l.End = LockEOF
	} else {
		l.End = c.signed(end, 64, "end")
	}
	return l, c.end()
}

// lockClass returns the class and sets Depth: a waiter has "->" before its
// class, indented by one blank per level.
func (c *cursor) lockClass(l *Lock) []byte {
	blanks := 0
	for blanks < len(c.rest) && c.rest[blanks] == ' ' {
		blanks++
	}
	f := c.field("class")
	if string(f) == "->" {
		l.Depth = max(blanks, 1)
		f = c.field("class")
	}
	return f
}

// lockFile reads "fe:00:9980104" or "<none>:0".
func (c *cursor) lockFile() (Dev, uint64) {
	f := c.field("file")
	if bytes.HasPrefix(f, []byte("<none>:")) {
		return Dev{}, 0
	}
	i := bytes.LastIndexByte(f, ':')
	if i < 0 {
		c.fail("file", errNotDigit)
		return Dev{}, 0
	}
	return c.hexDev(f[:i], "device"), c.number(f[i+1:], 10, 64, "inode")
}
