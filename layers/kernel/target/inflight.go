// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// What is on its way in the queue of a unix socket (SCM_RIGHTS) is in no table of
// the container. A look into the queue gives the engine a descriptor of its own
// of each description; it keeps them while the process is stopped, and whoever
// exports descriptions of their kind finds them in the list of the process whose
// socket it is. On the other side they are wanted by the first process, until
// they are on their way again (Frame.Transit).

// maxInFlight bounds the descriptors in flight of one process: the engine has
// them all open.
const maxInFlight = 4096

// addInFlight appends what is on its way in sockets that nobody has seen before,
// and what is on its way in those.
func (p *Process) addInFlight(list []Descriptor) ([]Descriptor, error) {
	for i := 0; i < len(list); i++ { // the list grows
		d := &list[i]
		if !d.First || d.Link.Kind != procfs.FDSocket || d.Info.SCMFds == 0 || d.Flags&unix.O_PATH != 0 {
			continue
		}
		own, err := p.Open(d)
		if err != nil {
			return nil, err
		}
		err = peekRights(int(own.Fd()), func(fd int) (bool, error) {
			f, err := p.inFlightDescriptor(fd)
			if err != nil || !f.First {
				return false, err
			}
			if p.inFlight = append(p.inFlight, fd); len(p.inFlight) > maxInFlight {
				return true, fmt.Errorf("more than %d descriptors are on their way in its sockets", maxInFlight)
			}
			list = append(list, f)
			return true, nil
		})
		own.Close()
		if err != nil {
			return nil, fmt.Errorf("pid %d: look into the queue of the socket at descriptor %d: %w", p.Pid, d.FD, err)
		}
	}
	return list, nil
}

// inFlightDescriptor describes a descriptor of the engine's.
func (p *Process) inFlightDescriptor(fd int) (Descriptor, error) {
	own := p.source.proc.Process(os.Getpid())
	d, err := p.source.look(own, fd)
	if err != nil {
		return d, err
	}
	d.InFlight, d.CloseOnExec = true, false
	d.Description, d.First, err = p.source.files.id(ResourceFile, linkClass(d.Link), d.Holder, uintptr(fd))
	return d, err
}

// InFlight is the description that a descriptor of the engine's, taken from the
// queue of a socket, leads to. It has been listed.
func (s *Source) InFlight(fd int) (uint64, error) {
	link, err := s.proc.Process(os.Getpid()).FDLink(fd)
	if err != nil {
		return 0, err
	}
	id, first, err := s.files.id(ResourceFile, linkClass(link), os.Getpid(), uintptr(fd))
	if err == nil && first {
		err = errors.New("a descriptor on its way was not there before")
	}
	return id, err
}

// peekRights calls keep with a descriptor of each description on its way in a
// socket, and closes those that are not kept.
func peekRights(fd int, keep func(fd int) (bool, error)) error {
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening != 0 {
		return os.NewSyscallError("getsockopt(SO_ACCEPTCONN)", err)
	}
	return PeekUnix(fd, func(m *UnixMessage) error {
		for i, right := range m.Rights {
			kept, err := keep(right)
			if kept {
				m.Rights[i] = -1 // not to be closed
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// closeInFlight closes what the engine has kept.
func (p *Process) closeInFlight() {
	for _, fd := range p.inFlight {
		_ = unix.Close(fd)
	}
	p.inFlight = nil
}
