// SPDX-License-Identifier: Apache-2.0

package file

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// maxSignal is SIGRTMAX.
const maxSignal = 64

// setAsync is FIOASYNC of include/uapi/asm-generic/ioctls.h, which changes no
// other flag, as F_SETFL would.
const setAsync = 0x5452

func decodeOwner(r *record.Record) (*state.FileOwner, error) {
	msg := &state.FileOwner{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return nil, err
	}
	if r.Entity == 0 || msg.Type > ownerGroup || msg.Id > maxThread || msg.Signal > maxSignal {
		return nil, fmt.Errorf("%s: no such owner of I/O: %v", r.Header, msg)
	}
	return msg, nil
}

// receiveOwner keeps who is to be signalled.
func (s *Subsystem) receiveOwner(r *record.Record) error {
	msg, err := decodeOwner(r)
	if err != nil {
		return err
	}
	if s.in.owners[r.Entity] != nil {
		return fmt.Errorf("%s: it has an owner already", r.Header)
	}
	s.in.owners[r.Entity] = msg
	return nil
}

// takeOwners are the descriptions of a process whose owners nobody has set yet:
// those in transit, or the others.
func (s *Subsystem) takeOwners(t *target.Task, transit bool) map[int]*state.FileOwner {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out map[int]*state.FileOwner
	for desc, msg := range s.in.owners {
		if slots := t.Table.Slots(desc); len(slots) > 0 && t.Table.InTransit(desc) == transit {
			if out == nil {
				out = map[int]*state.FileOwner{}
			}
			out[slots[0].FD] = msg
			delete(s.in.owners, desc)
		}
	}
	return out
}

// setOwners sets them when all processes and threads are there. The kernel
// remembers who does it, and checks a signal against that.
func (s *Subsystem) setOwners(t *target.Task, transit bool) error {
	for fd, m := range s.takeOwners(t, transit) {
		p := t.Plan()
		if m.Id != 0 {
			p.AsUser(m.Uid, 0)
			who := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, m.Type), m.Id)
			p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), setOwner, p.Put(who)))
			p.AsRoot()
		}
		if m.Signal != 0 {
			p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), setSignal, uint64(m.Signal)))
		}
		if m.Async {
			on := binary.LittleEndian.AppendUint32(nil, 1)
			p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), setAsync, p.Put(on)))
		}
		if err := p.Run(); err != nil {
			return fmt.Errorf("descriptor %d: have %d told of its I/O by a signal: %w", fd, m.Id, err)
		}
	}
	return nil
}
