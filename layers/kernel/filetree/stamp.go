// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// stamp is what tells a changed file from an unchanged one.
type stamp struct {
	size         int64
	mtime, ctime unix.StatxTimestamp
}

func stampOf(st *unix.Statx_t) stamp {
	return stamp{size: int64(st.Size), mtime: st.Mtime, ctime: st.Ctime}
}

// settleTime is how long after its last change a file counts as changing.
//
// A file system stamps a file before it copies what write(2) brings, with a
// clock that stands still between two ticks (before Linux 6.13), or for two
// seconds (FAT). A reader in between finds the new stamp beside old bytes. One
// call to write(2) that takes longer than this, from the stamp to its last
// byte, can still deceive; it takes a device that is overwhelmed.
const settleTime = 3 * time.Second

// settled reports whether the stamp is old enough to be believed.
func settled(st *unix.Statx_t) bool {
	now := time.Now().Add(-shift)
	for _, t := range []unix.StatxTimestamp{st.Mtime, st.Ctime} {
		d := now.Sub(time.Unix(t.Sec, int64(t.Nsec)))
		if d < settleTime && d > -settleTime {
			return false
		}
	}
	return true
}

// shift lets tests set our clock back or forth.
var shift time.Duration

// statMask is what the walk asks for.
const statMask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID

// statAt is statx(2) of a name in a directory, or of the descriptor itself if
// name is empty. It follows no symbolic link.
func statAt(dir int, name string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	for {
		err := unix.Statx(dir, name, flags, statMask, st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		return nil
	}
}

func fileType(st *unix.Statx_t) uint32 { return uint32(st.Mode) & unix.S_IFMT }

func timeOf(t unix.StatxTimestamp) *state.FileTime {
	return &state.FileTime{Seconds: t.Sec, Nanoseconds: t.Nsec}
}
