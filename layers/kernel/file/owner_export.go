// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Values of fcntl(2) that x/sys does not have, include/uapi/asm-generic/fcntl.h.
const (
	getSignal   = 11 // F_GETSIG
	setSignal   = 10 // F_SETSIG
	setOwner    = 15 // F_SETOWN_EX
	getOwner    = 16 // F_GETOWN_EX
	getOwnerIDs = 17 // F_GETOWNER_UIDS, CONFIG_CHECKPOINT_RESTORE
	ownerGroup  = 2  // F_OWNER_PGRP
)

// ownerEx is struct f_owner_ex.
type ownerEx struct{ kind, pid int32 }

// exportOwner pushes who is signalled of I/O on a description of any kind, if
// anybody is: with O_ASYNC, or by an owner alone, who gets SIGURG of a socket.
func (s *Subsystem) exportOwner(ctx context.Context, p *target.Process, d *target.Descriptor, out record.Sink) error {
	if d.Flags&unix.O_PATH != 0 || d.Flags&unix.O_ASYNC == 0 && d.Link.Kind != procfs.FDSocket {
		return nil
	}
	msg, err := s.owner(p, d)
	if err != nil || msg == nil {
		return err
	}
	return push(ctx, out, record.Header{Kind: KindOwner, Entity: d.Description}, msg)
}

// owner asks the kernel, which answers in this process's pid namespace.
func (s *Subsystem) owner(p *target.Process, d *target.Descriptor) (*state.FileOwner, error) {
	fd, err := p.Open(d)
	if err != nil {
		return nil, err
	}
	defer fd.Close()
	var who ownerEx
	if err := fcntl(fd.Fd(), getOwner, unsafe.Pointer(&who)); err != nil {
		return nil, fmt.Errorf("ask for its owner: %w", err)
	}
	signal, _, errno := unix.Syscall(unix.SYS_FCNTL, fd.Fd(), getSignal, 0)
	if errno != 0 {
		return nil, fmt.Errorf("ask for its signal: %w", errno)
	}
	var ids [2]uint32 // real, effective
	if err := fcntl(fd.Fd(), getOwnerIDs, unsafe.Pointer(&ids)); err != nil {
		return nil, fmt.Errorf("ask who set its owner: %w", err)
	}
	msg := &state.FileOwner{Type: uint32(who.kind), Signal: uint32(signal), Async: d.Flags&unix.O_ASYNC != 0}
	if who.pid == 0 && signal == 0 && !msg.Async {
		return nil, nil
	}
	if msg.Uid, _, err = target.Owner(p.Proc, &unix.Stat_t{Uid: ids[1]}); err != nil {
		return nil, err
	}
	if who.pid == 0 {
		return msg, nil
	}
	id, err := s.inside(who)
	if err != nil {
		return nil, err
	}
	if id == 0 {
		return nil, &refusal{describeLink(d), fmt.Sprintf("its I/O is told by a signal to %d, which is not in the container any more", who.pid), "set another owner (F_SETOWN)"}
	}
	msg.Id = uint32(id)
	return msg, nil
}

// inside translates a thread, process or group into the container's pid
// namespace; 0 if it is not there.
func (s *Subsystem) inside(who ownerEx) (int, error) {
	for _, p := range s.env.Source.Processes() {
		if who.kind != ownerGroup {
			for _, th := range p.Traced.Threads() {
				if th.Tid == int(who.pid) {
					return th.NSTid, nil
				}
			}
			continue
		}
		st, err := p.Proc.Status()
		if err != nil {
			return 0, err
		}
		// The lists go from this namespace to the process's own.
		if n := len(st.NSpgid); n > 0 && st.NSpgid[0] == int(who.pid) {
			return st.NSpgid[n-1], nil
		}
	}
	return 0, nil
}

func fcntl(fd uintptr, command int, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_FCNTL, fd, uintptr(command), uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}
