// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// pushLost tells the destination of the stopped container's.
func (x *exporter) pushLost(ctx context.Context) error {
	if !x.hush.asked.Load() {
		return nil
	}
	list, err := x.findLost()
	if err != nil {
		return fmt.Errorf("connections that are lost: %w", err)
	}
	if len(list) == 0 {
		return nil
	}
	return x.push(ctx, record.Header{Kind: KindLost}, encodeLost(list))
}

func encodeLost(list []ends) *state.LostConnections {
	if len(list) > mostLost {
		slog.Warn("more TCP connections are lost than their other ends are told of", "count", len(list), "limit", mostLost)
	}
	m := &state.LostConnections{}
	for _, e := range list[:min(len(list), mostLost)] {
		m.Connection = append(m.Connection, encodeEnds(e))
	}
	return m
}

// note looks at the connections of a container that runs, in its network namespace.
func (l *hush) note() error {
	l.begun = nil
	return eachInet(begunStates, func(s *inetSocket) { l.begun = append(l.begun, ends{s.local, s.remote}) })
}

// begunStates are those of connections that have not ended for the kernel. One whose
// opening was under way may be accepted, answered and closed by the time the container
// is stopped. (Asked for SYN_RECV, the kernel tells of NEW_SYN_RECV,
// net/ipv4/inet_diag.c.)
const begunStates = 1<<stateSynReceived | waitingStates | lateStates

// findLost lists what the container's programs have closed before everything was sent,
// and what they have never seen.
func (x *exporter) findLost() (list []ends, err error) {
	init := x.env.Source.Processes()[0]
	net, ofHost, err := networkOf(init.Proc)
	if err != nil {
		return nil, err
	}
	// A host's namespace is full of others' connections, and what is within the
	// container is never late.
	concerns := func(e ends) bool {
		return (!ofHost || x.tcp.listens(e.local.Port())) && !ownAddress(e) && !x.tcp.ends[e.reversed()]
	}
	now, err := x.unended(init, net.Inode)
	if err != nil {
		return nil, err
	}
	err = target.InNamespace(init.Proc.Path("ns/net"), func() error {
		for _, s := range now {
			e := ends{s.local, s.remote}
			if s.inode != 0 || !concerns(e) {
				continue
			}
			lost, err := isLost(s)
			if err != nil {
				return err
			}
			if lost {
				list = append(list, e)
			}
		}
		return nil
	})
	return list, err
}

// isLost tells it of a connection without a descriptor, in the thread's network
// namespace.
func isLost(s *inetSocket) (bool, error) {
	switch {
	case s.state == stateSynReceived:
		return true, nil // its client may believe that it stands
	case 1<<s.state&lateStates == 0:
		return false, nil // it waits to be accepted
	}
	sure, err := arrivesByItself(s)
	if err == nil && !sure {
		slog.Warn("a TCP connection was closed before everything was sent: the other end will find it reset", "from", s.local, "to", s.remote)
	}
	return !sure, err
}

// unended are the connections in a network namespace that have not ended, of those
// that had not at note, but for the container's own.
func (x *exporter) unended(p *target.Process, ns uint64) (list []*inetSocket, err error) {
	ask := slices.DeleteFunc(slices.Clone(x.hush.begun), func(e ends) bool { return x.tcp.ends[e] })
	if _, known := x.sockets[ns]; known || len(ask) > fewBegun {
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

// fewBegun are found one by one faster than by a walk through all of a host's sockets.
const fewBegun = 64

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
