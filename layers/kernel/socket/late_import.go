// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Prepare makes ready to drop, and asks the source what. Where the kernel has not what
// it takes, and at a source of the version before, late segments are answered.
func (s *Subsystem) Prepare(ctx context.Context) error {
	p, err := policy(s.env, TCPKeep)
	if err != nil || p == TCPClose || s.env.Peer == nil || s.env.Leave == nil {
		return nil // a policy that is not known is refused where it matters
	}
	var d *netdrop.Late
	err = target.InNamespace(procfs.Host().Process(s.env.Frame.Init).Path("ns/net"), func() (err error) { d, err = netdrop.NewLate(); return err })
	if err != nil {
		slog.Warn("late segments of connections that have ended will be answered by a reset", "error", err)
		return nil
	}
	if _, err := s.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbLate}); err != nil {
		d.Close()
		return ctx.Err()
	}
	s.late.drop = d
	s.env.Frame.AtFailure(func() error { s.late.close(); return nil })
	return nil
}

func (l *late) close() {
	if l.drop != nil {
		l.drop.Close()
		l.drop = nil
	}
}

// receive keeps the source's list.
func (l *late) receive(r *record.Record) error {
	list, err := decodeLate(r)
	if err == nil && l.list != nil {
		err = errors.New("a second list of connections that have ended")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	l.list = list
	return nil
}

func decodeLate(r *record.Record) (list []netdrop.Ended, err error) {
	m := &state.LateConnections{}
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return nil, err
	}
	if n := len(m.Connection); r.Entity != 0 || n == 0 || n > mostLate {
		return nil, fmt.Errorf("%d connections that have ended, the limit is %d", n, mostLate)
	}
	for _, c := range m.Connection {
		e, err := decodeEnds(c.Ends)
		if err != nil {
			return nil, err
		}
		left := time.Duration(c.Left) * time.Millisecond
		if left > netdrop.LateFor {
			return nil, fmt.Errorf("a connection that has ended, of which something may come for %s", left)
		}
		list = append(list, netdrop.Ended{Connection: e.arriving(), Left: left})
	}
	return list, nil
}

// dropLate begins to drop, before the first socket is made.
func (s *Subsystem) dropLate() error {
	l := &s.late
	if l.drop == nil {
		return nil
	}
	err := target.InNamespace(s.env.Frame.Task(target.FirstTask).Proc.Path("ns/net"), func() (err error) { l.list, err = s.onlyEnded(l.list); return err })
	switch {
	case err != nil:
		return fmt.Errorf("connections that have ended: %w", err)
	case len(l.list) == 0:
		l.close()
		return nil
	}
	return l.drop.Drop(l.list)
}

// fewLate are found one by one faster than by a walk through all of a host's sockets.
const fewLate = 64

// onlyEnded leaves out what is a connection here, or will be one: an image cannot
// silence others in a namespace that the container shares.
func (s *Subsystem) onlyEnded(list []netdrop.Ended) (ended []netdrop.Ended, err error) {
	living := map[netdrop.Connection]bool{}
	note := func(i *inetSocket) { living[ends{i.local, i.remote}.arriving()] = i.state != stateTimeWait }
	if len(list) > fewLate {
		err = eachInet(^uint32(0)&^(1<<stateTimeWait|1<<stateListen), note)
	}
	for _, e := range list {
		if len(list) <= fewLate && err == nil {
			var found *inetSocket
			if found, err = findInet(ends{e.Destination, e.Source}); found != nil {
				note(found)
			}
		}
	}
	if s.kept != nil {
		for _, c := range slices.Concat(s.kept.all, s.kept.waiting) {
			living[c] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(e netdrop.Ended) bool { return living[e.Connection] }), err
}

// leaveLate leaves what drops to the supervisor, when the copy begins. What cannot be
// left is answered by a reset, as it was before there was this.
func (s *Subsystem) leaveLate() {
	l := &s.late
	if l.drop == nil {
		return
	}
	f, err := l.drop.File()
	if err == nil {
		err = errors.Join(s.env.Leave(f, netdrop.LateFor), f.Close())
	}
	if err != nil {
		slog.Warn("late segments of connections that have ended will be answered by a reset", "error", err)
	}
	l.close()
}
