// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// AnyUser reports whether a process that the live spec starts could act as any
// user of its user namespace on files.
func (a *Allowed) AnyUser() bool {
	return a.UID == 0 || a.Permitted&(1<<unix.CAP_DAC_OVERRIDE|1<<unix.CAP_SETUID) != 0
}

// NarrowFiles makes the following calls check file permissions as the live
// spec's user, until WidenFiles. A frame runs as root; without this a forged
// image could open what the container's user cannot. It does nothing where
// that user may act as any other anyway.
func (p *Plan) NarrowFiles() { p.fileUser(p.task.frame.Allowed.UID, p.task.frame.Allowed.GID) }

// WidenFiles ends NarrowFiles.
func (p *Plan) WidenFiles() { p.fileUser(0, 0) }

// fileUser sets the ids by setfsgid(2) and setfsuid(2), which report no
// failure: asking for -1 changes nothing and returns the id in force.
func (p *Plan) fileUser(uid, gid uint32) {
	if p.task.frame == nil || p.task.frame.Allowed.AnyUser() {
		return
	}
	for _, c := range []struct {
		nr uintptr
		id uint32
	}{{unix.SYS_SETFSGID, gid}, {unix.SYS_SETFSUID, uid}} {
		p.Quiet(tracer.Syscall(c.nr, uint64(c.id)))
		p.Expect(tracer.Syscall(c.nr, uint64(^uint32(0))), int64(c.id))
	}
}

// AsUser makes the following calls with the effective ids uid and gid, until
// AsRoot: sockets remember who made them (SO_PEERCRED). Where the live spec's
// user could not become uid, that user is taken.
func (p *Plan) AsUser(uid, gid uint32) {
	a := &Allowed{}
	if p.task.frame != nil {
		a = &p.task.frame.Allowed
	}
	if !a.AnyUser() {
		uid, gid = a.UID, a.GID
	}
	p.effective(uid, gid)
}

// AsRoot ends AsUser.
func (p *Plan) AsRoot() {
	p.Call(tracer.Syscall(unix.SYS_SETRESUID, keepID, 0, keepID))
	p.Call(tracer.Syscall(unix.SYS_SETRESGID, keepID, 0, keepID))
}

// effective lowers the group first: without the user's root there is no right
// to do it.
func (p *Plan) effective(uid, gid uint32) {
	p.Call(tracer.Syscall(unix.SYS_SETRESGID, keepID, uint64(gid), keepID))
	p.Call(tracer.Syscall(unix.SYS_SETRESUID, keepID, uint64(uid), keepID))
}

const keepID = uint64(^uint32(0))

// Owner translates a file's owner, as the engine sees it, into the numbers of
// the user namespace of process t.
func Owner(t procfs.Task, st *unix.Stat_t) (uid, gid uint32, err error) {
	uids, err := t.UIDMap()
	if err != nil {
		return 0, 0, fmt.Errorf("pid %d: %w", t.Pid(), err)
	}
	gids, err := t.GIDMap()
	if err != nil {
		return 0, 0, fmt.Errorf("pid %d: %w", t.Pid(), err)
	}
	return inner(uids, st.Uid), inner(gids, st.Gid), nil
}

// overflowID is what the kernel shows for an id that a user namespace lacks.
const overflowID = 65534

// inner finds the id inside of a user namespace.
func inner(maps []procfs.IDMap, outer uint32) uint32 {
	for _, m := range maps {
		if outer >= m.Outside && outer-m.Outside < m.Count {
			return m.Inside + (outer - m.Outside)
		}
	}
	return overflowID
}
