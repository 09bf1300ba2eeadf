// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/spec/state"
)

// connected is a TCP connection of the container that is to be exported.
type connected struct {
	description uint64
	process     *target.Process
	descriptor  *target.Descriptor
	own         *target.Duplicate // until the event ends
	ends        ends
	outside     bool // the other end is
	read        *tcpState
	net         int // its network namespace, open while it is ended; -1 before
}

// findConnections lists the TCP connections of all processes, each once.
func (x *exporter) findConnections(procs []*target.Process) error {
	for _, p := range procs {
		list, err := p.Descriptors()
		if err != nil {
			return err
		}
		for i := range list {
			d := &list[i]
			if d.Owner() != target.OwnerSocket || x.connections[d.Description] != nil {
				continue
			}
			if err := x.findConnection(p, d); err != nil {
				return fmt.Errorf("pid %d: fd %d: %w", p.Pid, d.FD, err)
			}
		}
	}
	return nil
}

func (x *exporter) findConnection(p *target.Process, d *target.Descriptor) error {
	c, ok := x.tcp.known[d.Link.Inode]
	if !ok {
		return nil
	}
	n, err := x.network(p)
	if err != nil {
		return err
	}
	how, at, err := n.endsOf(p.Proc, &c)
	if err != nil || how != state.SocketState_SOCKET_STATE_CONNECTION {
		return err
	}
	own, err := p.Open(d)
	if err != nil {
		return err
	}
	x.connections[d.Description] = &connected{
		outside: at == outside, description: d.Description, process: p, descriptor: d, own: own, net: -1, ends: ends{c.local, c.remote},
	}
	x.byEnds[ends{c.local, c.remote}] = d.Description
	return nil
}

// consistent is how often the connections are read again, and for how long, if
// the kernel moved data from one end to the other meanwhile. Without a program
// that runs it comes to an end by itself: what was sent has arrived, or the
// window is full.
const (
	consistentTries = 200
	consistentPause = time.Millisecond
)

// readConnections reads all of them while the container is frozen: if we died
// otherwise, a program could find its connection in repair mode.
func (x *exporter) readConnections(ctx context.Context) error {
	if len(x.connections) == 0 {
		return nil
	}
	return x.env.Source.WhileFrozen(ctx, func() error {
		if err := x.mark(); err != nil {
			return err
		}
		for try := 0; ; try++ {
			err := x.readOnce()
			if !errors.Is(err, errMoving) || try == consistentTries {
				return errors.Join(err, x.unmark(func(c *connected) bool { return !c.outside }))
			}
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), err)
			case <-time.After(consistentPause):
			}
		}
	})
}

// mark marks the connections, those to the outside until the container runs on:
// they are deaf meanwhile.
func (x *exporter) mark() error {
	for _, c := range x.connections {
		if hasFilter(int(c.own.Fd())) {
			return &refusal{fmt.Sprintf("TCP connection %s to %s", c.ends.local, c.ends.remote), "it has a packet filter (SO_ATTACH_FILTER)", ""}
		}
	}
	outside := x.outside()
	if len(outside) > 0 {
		if err := x.startHold(netdrop.Silence{}); err != nil {
			return err
		}
	}
	unmark := func() error { return x.unmark(func(*connected) bool { return true }) }
	if x.hold == nil {
		x.env.Source.BeforeRun(unmark)
	} else {
		x.hold.unmark = unmark
	}
	for _, c := range x.connections {
		if err := tcprepair.Mark(int(c.own.Fd()), c.outside); err != nil {
			return fmt.Errorf("pid %d: fd %d: TCP connection %s to %s: %w", c.process.Pid, c.descriptor.FD, c.ends.local, c.ends.remote, err)
		}
	}
	x.hold.hear(outside)
	return nil
}

// outside are the connections to the outside as netdrop names them.
func (x *exporter) outside() (list []netdrop.Connection) {
	for _, c := range x.connections {
		if c.outside {
			list = append(list, c.ends.arriving())
		}
	}
	return list
}

// unmark ends the marks of some connections. Those of a process that was killed
// are gone.
func (x *exporter) unmark(which func(*connected) bool) error {
	var errs []error
	for _, c := range x.connections {
		if !which(c) {
			continue
		}
		own, err := c.process.Open(c.descriptor)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err == nil {
			_, err = tcprepair.Unmark(int(own.Fd()))
			err = errors.Join(err, own.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// readOnce fails with errMoving if it is worth another try.
func (x *exporter) readOnce() error {
	for _, c := range x.connections {
		var err error
		if c.read, err = readTCP(int(c.own.Fd())); err != nil {
			return fmt.Errorf("pid %d: fd %d: TCP connection %s to %s: %w", c.process.Pid, c.descriptor.FD, c.ends.local, c.ends.remote, err)
		}
		c.read.msg.Outside = c.outside
	}
	return x.consistent()
}

// consistent compares the ends of the connections within the container: what
// one end does not have to send any more the other one must have.
func (x *exporter) consistent() error {
	for _, c := range x.connections {
		other := x.connections[x.byEnds[c.ends.reversed()]]
		if other == nil {
			continue
		}
		begin := c.read.msg.SendNext - uint32(len(c.read.send))
		if got := other.read.msg.ReceiveNext; int32(got-begin) < 0 || int32(c.read.msg.SendNext-got) < 0 {
			return fmt.Errorf("%w: TCP connection %s to %s: its ends do not come to rest: one has %d to %d to send, the other has received up to %d",
				errMoving, c.ends.local, c.ends.remote, begin, c.read.msg.SendNext, got)
		}
		if c.read.sendEndArrived && !other.read.msg.ReceiveEnded {
			return fmt.Errorf("%w: TCP connection %s to %s: its ends do not come to rest: one says that its end of the stream has arrived", errMoving, c.ends.local, c.ends.remote)
		}
	}
	return nil
}

// silence puts the connections into repair mode when the container is about to
// be killed: they end without a word to the other end, whose connection goes on
// with the copy, and leave nothing in the way of a copy in the same network
// namespace. Where one cannot be silenced, its process is killed all the same.
func (x *exporter) silence() {
	if len(x.connections) == 0 {
		return
	}
	list := slices.Collect(maps.Values(x.connections))
	outside := x.outside()
	x.env.Source.BeforeKill(func() error {
		net, err := os.Open(procfs.Host().Process(x.env.Source.Init).Path("ns/net"))
		if err != nil {
			return fmt.Errorf("network namespace of the container: %w", err)
		}
		defer net.Close()
		err = target.InNamespaceFD(int(net.Fd()), "net", func() error { _, err := netdrop.Drop(netdrop.Silence{Connections: outside}); return err })
		if err != nil {
			return err
		}
		var errs []error
		for _, c := range list {
			errs = append(errs, c.silence())
		}
		return errors.Join(errs...)
	})
	x.env.Source.AfterKill(func() error { return x.evictClosed(list) })
}

func (c *connected) silence() error {
	var err error
	if c.net, err = unix.Open(c.process.Proc.Path("ns/net"), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("network namespace of pid %d: %w", c.process.Pid, err)
	}
	own, err := c.process.Open(c.descriptor)
	if err != nil {
		return err
	}
	if err = tcprepair.Mark(int(own.Fd()), c.outside); err == nil {
		_, err = tcprepair.Enter(int(own.Fd()))
	}
	return errors.Join(err, own.Close())
}

// evictClosed removes other ends that had been closed by their program and would
// wait in vain for an answer: see standIn, which takes their place in a copy.
func (x *exporter) evictClosed(list []*connected) error {
	var errs []error
	for _, c := range list {
		if c.net < 0 {
			continue
		}
		if c.read.msg.ReceiveEnded && !c.outside && x.byEnds[c.ends.reversed()] == 0 {
			errs = append(errs, target.InNamespaceFD(c.net, "net", func() error { return evict(c.ends.reversed(), true) }))
		}
		errs = append(errs, unix.Close(c.net))
	}
	return errors.Join(errs...)
}

// closeConnections ends what findConnections opened.
func (x *exporter) closeConnections() {
	for _, c := range x.connections {
		_ = c.own.Close()
	}
}
