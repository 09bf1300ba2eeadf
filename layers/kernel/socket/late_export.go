// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// pushLate tells the destination of the stopped container's.
func (x *exporter) pushLate(ctx context.Context) error {
	if !x.late.asked.Load() {
		return nil
	}
	list, err := x.findLate()
	if err != nil {
		return fmt.Errorf("connections that have ended: %w", err)
	}
	if len(list) == 0 {
		return nil
	}
	m := &state.LateConnections{}
	for _, e := range list {
		m.Connection = append(m.Connection, &state.LateConnection{
			Ends: encodeEnds(ends{e.Destination, e.Source}), Left: uint32(e.Left.Milliseconds()),
		})
	}
	return x.push(ctx, record.Header{Kind: KindLate}, m)
}

// note looks at the connections of a container that runs, in its network namespace.
func (l *late) note() (err error) {
	earlier, err := netdrop.ListLate()
	if err != nil {
		return err
	}
	l.ended, l.begun = nil, nil
	var waits []*inetSocket
	err = eachInet(1<<stateTimeWait|begunStates, func(s *inetSocket) {
		if s.state == stateTimeWait {
			waits = append(waits, s)
		} else {
			l.begun = append(l.begun, ends{s.local, s.remote})
		}
	})
	slices.SortFunc(waits, func(a, b *inetSocket) int { return cmp.Compare(b.expires, a.expires) })
	for _, s := range waits[:min(len(waits), mostLate)] {
		l.ended = append(l.ended, lateEnd(ends{s.local, s.remote}))
	}
	// What has ended before an earlier move comes behind it: there may be no room.
	l.ended = append(l.ended, earlier...)
	return err
}

func lateEnd(e ends) netdrop.Ended {
	return netdrop.Ended{Connection: e.arriving(), Left: netdrop.LateFor}
}

// begunStates are those of connections that may have ended by the time the container
// is stopped: one whose opening was under way may be accepted, answered and closed.
// (Asked for SYN_RECV, the kernel tells of NEW_SYN_RECV, net/ipv4/inet_diag.c.)
const begunStates = 1<<stateSynReceived | waitingStates | lateStates

// findLate lists them: what the kernel still ends, what has ended since note, and what
// had before.
func (x *exporter) findLate() (list []netdrop.Ended, err error) {
	init := x.env.Source.Processes()[0]
	theirs, err1 := init.Proc.Namespace("net")
	ours, err2 := procfs.Host().Process(os.Getpid()).Namespace("net")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	// A host's namespace is full of others' connections, and what is within the
	// container is never late.
	concerns := func(e ends) bool {
		return (theirs != ours || x.tcp.listens(e.local.Port())) && !ownAddress(e) && !x.tcp.ends[e.reversed()]
	}
	now, err := x.unended(init, theirs.Inode)
	if err != nil {
		return nil, err
	}
	there := map[ends]bool{}
	err = target.InNamespace(init.Proc.Path("ns/net"), func() error {
		for _, s := range now {
			e := ends{s.local, s.remote}
			there[e] = true
			if s.inode != 0 || 1<<s.state&lateStates == 0 || !concerns(e) {
				continue
			}
			sure, err := arrivesByItself(s)
			if err != nil {
				return err
			}
			if sure {
				list = append(list, lateEnd(e))
			} else {
				slog.Warn("a TCP connection was closed before everything was sent: the other end will find it reset", "from", e.local, "to", e.remote)
			}
		}
		return nil
	})
	for _, e := range x.late.begun {
		if !there[e] && !x.tcp.ends[e] && concerns(e) {
			list = append(list, lateEnd(e))
		}
	}
	for _, l := range x.late.ended {
		if e := (ends{l.Destination, l.Source}); !there[e] && !x.tcp.ends[e] && concerns(e) {
			list = append(list, l)
		}
	}
	return list[:min(len(list), mostLate)], err
}

// unended are the connections in a network namespace that have not ended, of those
// that had not at note, but for the container's own.
func (x *exporter) unended(p *target.Process, ns uint64) (list []*inetSocket, err error) {
	ask := slices.DeleteFunc(slices.Clone(x.late.begun), func(e ends) bool { return x.tcp.ends[e] })
	if _, known := x.sockets[ns]; known || len(ask) > fewLate {
		return x.inetSockets(p)
	}
	err = target.InNamespace(p.Proc.Path("ns/net"), func() error {
		for _, e := range ask {
			s, err := findInet(e) // finds a listener, too
			if err != nil {
				return err
			}
			if s != nil && s.local == e.local && s.remote == e.remote && 1<<s.state&begunStates != 0 {
				list = append(list, s)
			}
		}
		return nil
	})
	return list, err
}

// arrivesByItself: nobody has to send anything any more for all that was written by a
// connection without a descriptor to arrive, unless the network loses it.
func arrivesByItself(s *inetSocket) (bool, error) {
	if s.unacknowledged == 0 {
		return true, nil
	}
	// Dumps do not tell more.
	found, err := findInet(ends{s.local, s.remote})
	return found == nil || !found.unsure, err
}
