// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/binary"
	"errors"
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
// spec's user, until WidenFiles, and takes the capabilities that the spec does
// not give out of the effective set. A frame runs as root with more than the
// container has; without this a forged image could open what the container's
// user cannot, or have the frame's capabilities remembered in an open file
// (many files of proc and cgroup ask for those of whoever opened them).
func (p *Plan) NarrowFiles() { p.narrow(0) }

// NarrowFilesWithout is NarrowFiles without a capability that the spec may give.
func (p *Plan) NarrowFilesWithout(capability int) { p.narrow(1 << capability) }

func (p *Plan) narrow(without uint64) {
	a := &p.task.frame.Allowed
	p.fileUser(a.UID, a.GID)
	p.capabilities(a.inReach() &^ without)
}

// WidenFiles ends NarrowFiles.
func (p *Plan) WidenFiles() {
	p.capabilities(^uint64(0))
	p.fileUser(0, 0)
}

// Reaches reports whether a process that the live spec starts can make a
// capability effective that counts outside of a user namespace, too: by its
// bit, in the namespace whose map of user ids is given.
func (a *Allowed) Reaches(capability int, uids []procfs.IDMap) bool {
	return Identity(uids) && a.inReach()&(1<<capability) != 0
}

// Mounts reports whether a process that the live spec starts can mount file
// systems in the container's namespace.
func (a *Allowed) Mounts() bool { return a.inReach()&(1<<unix.CAP_SYS_ADMIN) != 0 }

// Identity reports whether a map of ids is that of the initial user namespace.
func Identity(maps []procfs.IDMap) bool {
	return len(maps) == 1 && maps[0] == procfs.IDMap{Count: 1<<32 - 1}
}

// inReach are the capabilities that a process which the live spec starts can
// make effective: root regains its bounding set by any execve(2).
func (a *Allowed) inReach() uint64 {
	if a.UID == 0 && !a.NoNewPrivileges {
		return a.Effective | a.Permitted | a.Bounding
	}
	return a.Effective | a.Permitted
}

// CanReach reports whether a process that the live spec starts can make a
// capability effective.
func (a *Allowed) CanReach(capability int) bool { return a.inReach()&(1<<capability) != 0 }

// capVersion is _LINUX_CAPABILITY_VERSION_3 of include/uapi/linux/capability.h.
const capVersion = 0x20080522

// capabilities sets the effective set to those of mask that are permitted.
func (p *Plan) capabilities(mask uint64) {
	t := p.task
	if t.caps == nil {
		st, err := t.Proc.Status()
		if err != nil {
			p.err = errors.Join(p.err, fmt.Errorf("read the frame's capabilities: %w", err))
			return
		}
		t.caps = &st.Cap
	}
	le := binary.LittleEndian
	header := le.AppendUint64(nil, capVersion) // and pid 0: the caller
	var sets []byte
	for _, half := range []int{0, 32} {
		for _, set := range []uint64{t.caps.Permitted & mask, t.caps.Permitted, t.caps.Inheritable} {
			sets = le.AppendUint32(sets, uint32(set>>half))
		}
	}
	p.Call(tracer.Syscall(unix.SYS_CAPSET, p.Put(header), p.Put(sets)))
}

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

// BecomeUser is AsUser for good, with all ids: of a process that is about to end.
func (p *Plan) BecomeUser(uid, gid uint32) {
	if a := &p.task.frame.Allowed; !a.AnyUser() {
		uid, gid = a.UID, a.GID
	}
	p.Call(tracer.Syscall(unix.SYS_SETRESGID, uint64(gid), uint64(gid), uint64(gid)))
	p.Call(tracer.Syscall(unix.SYS_SETRESUID, uint64(uid), uint64(uid), uint64(uid)))
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

// HostOwner is the inverse of Owner. ok is false if the user namespace lacks one
// of them.
func HostOwner(t procfs.Task, uid, gid uint32) (hostUID, hostGID uint32, ok bool, err error) {
	uids, err := t.UIDMap()
	if err != nil {
		return 0, 0, false, fmt.Errorf("pid %d: %w", t.Pid(), err)
	}
	gids, err := t.GIDMap()
	if err != nil {
		return 0, 0, false, fmt.Errorf("pid %d: %w", t.Pid(), err)
	}
	hostUID, ok1 := outer(uids, uid)
	hostGID, ok2 := outer(gids, gid)
	return hostUID, hostGID, ok1 && ok2, nil
}

// outer finds the id outside of a user namespace.
func outer(maps []procfs.IDMap, inner uint32) (uint32, bool) {
	for _, m := range maps {
		if inner >= m.Inside && inner-m.Inside < m.Count {
			return m.Outside + (inner - m.Inside), true
		}
	}
	return 0, false
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

// AsFileUser runs fn on a thread of the engine with the file system user uid of
// the initial user namespace. The thread ends with it. fn must not start
// goroutines that need the user.
func AsFileUser(uid uint32, fn func() error) error {
	done := make(chan error, 1)
	go onSpareThread(func() {
		// setfsuid(2) reports no failure: it returns the id that was in force.
		_, err := unix.SetfsuidRetUid(int(uid))
		now, err2 := unix.SetfsuidRetUid(-1)
		if err = errors.Join(err, err2); err == nil && uint32(now) != uid {
			err = unix.EPERM
		}
		if err != nil {
			done <- fmt.Errorf("become file system user %d: %w (the engine has to be root)", uid, err)
			return
		}
		done <- fn()
	})
	return tracer.WaitFor(done)
}
