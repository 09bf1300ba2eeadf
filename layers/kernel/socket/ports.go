// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// ports are where a running container takes in what nobody has asked for.
type ports struct {
	silence   netdrop.Silence
	listeners []listening
}

type listening struct {
	pid, fd int
	port    uint16
}

// listPorts finds them among the descriptors of all processes.
func (s *Subsystem) listPorts() (*ports, error) {
	pids, err := s.env.Source.Pids()
	if err != nil {
		return nil, err
	}
	p, seen := &ports{}, map[uint64]bool{}
	for _, pid := range pids {
		list, err := s.env.Source.Look(pid)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if d := &list[i]; d.Owner() == target.OwnerSocket && !seen[d.Link.Inode] {
				seen[d.Link.Inode] = true
				if err := p.add(d.Holder, d); err != nil && !procfs.IsGone(err) && !isOther(err) {
					return nil, err
				}
			}
		}
	}
	return p, nil
}

func (p *ports) add(pid int, d *target.Descriptor) error {
	name, err := protocol(d)
	if err != nil {
		return err
	}
	switch name {
	case "TCP", "TCPv6", "MPTCP", "MPTCPv6":
		c, err := connectionOf(pid, d.FD)
		if err != nil || c.state != stateListen {
			return err
		}
		p.silence.Listeners = append(p.silence.Listeners, c.local.Port())
		p.listeners = append(p.listeners, listening{pid, d.FD, c.local.Port()})
	case "UDP", "UDPv6":
		return borrow(pid, d.FD, func(own int) error {
			a, err := unix.Getsockname(own)
			if port := addrPort(a).Port(); err == nil && port != 0 {
				p.silence.Datagrams = append(p.silence.Datagrams, port)
			}
			return nil
		})
	}
	return nil
}

// A program that runs accepts its connections within a few microseconds, and a
// handshake in its network takes less than a millisecond; who does not is not
// waited for long, since new clients wait meanwhile.
const (
	drainEvery = 500 * time.Microsecond
	drainMost  = 100 * time.Millisecond
)

// drained waits until nothing waits to be accepted and no handshake is under way.
// None begins meanwhile.
func (p *ports) drained(ctx context.Context, net *os.File) error {
	for end := time.Now().Add(drainMost); time.Now().Before(end); {
		busy, err := p.busy(net)
		if err != nil || !busy {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(drainEvery):
		}
	}
	return nil
}

func (p *ports) busy(net *os.File) (busy bool, err error) {
	for _, l := range p.listeners {
		c, err := connectionOf(l.pid, l.fd)
		if procfs.IsGone(err) || isOther(err) {
			continue
		}
		if err != nil || c.pending > 0 {
			return true, err
		}
	}
	if len(p.listeners) == 0 {
		return false, nil
	}
	err = target.InNamespaceFD(int(net.Fd()), "net", func() (err error) { busy, err = handshakes(p.silence.Listeners); return err })
	return busy, err
}

// handshakes tells whether one is under way at one of the ports, in the thread's
// network namespace.
func handshakes(listeners []uint16) (found bool, err error) {
	err = eachInet(1<<stateSynReceived, func(s *inetSocket) { found = found || slices.Contains(listeners, s.local.Port()) })
	return found, err
}

// maxCommand bounds what goes in one command, in bytes.
const maxCommand = 256 << 10

// encodePackets writes as many packets as fit, each behind its length (4 bytes,
// little endian), and tells how many.
func encodePackets(list [][]byte) (body []byte, n int) {
	for _, p := range list {
		if n > 0 && len(body)+4+len(p) > maxCommand {
			break
		}
		body = append(binary.LittleEndian.AppendUint32(body, uint32(len(p))), p...)
		n++
	}
	return body, n
}

var errPackets = errors.New("packets that arrived: the list is cut off")

func decodePackets(body []byte) (list [][]byte, err error) {
	for len(body) > 0 {
		if len(body) < 4 {
			return nil, errPackets
		}
		n := binary.LittleEndian.Uint32(body)
		if uint64(n) > uint64(len(body)-4) {
			return nil, errPackets
		}
		list = append(list, body[4:4+n])
		body = body[4+n:]
	}
	return list, nil
}
