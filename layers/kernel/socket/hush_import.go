// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// mayTell warns of what cannot be hushed: it is answered by a reset, as it was before
// there was this.
func mayTell(err error) {
	slog.Warn("late segments of connections that have ended will be answered by a reset", "error", err)
}

// Prepare begins to note what is opened in the copy's network, and asks the source what
// is lost. Where the kernel has not what it takes, and at a source of the version
// before, late segments are answered.
func (s *Subsystem) Prepare(ctx context.Context) error {
	p, err := policy(s.env, TCPKeep)
	if err != nil || p == TCPClose || s.env.Peer == nil || s.env.Leave == nil {
		return nil // a policy that is not known is refused where it matters
	}
	init := procfs.Host().Process(s.env.Frame.Init)
	l := &s.hush
	if _, l.ofHost, err = networkOf(init); err != nil {
		return fmt.Errorf("network namespace of the frame: %w", err)
	}
	if !l.ofHost {
		if err := target.InNamespace(init.Path("ns/net"), func() error { return l.make(nil) }); err != nil {
			mayTell(err)
			return nil
		}
	}
	s.env.Frame.AtFailure(func() error { l.close(); return nil })
	if _, err := s.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbLost}); err != nil {
		l.ofHost = false
		l.close()
		return ctx.Err()
	}
	return nil
}

// make is called in the copy's network namespace. ports are those of its own ends that
// are meant, nil for all.
func (l *hush) make(ports []uint16) (err error) {
	if l.net, err = netdrop.NewHush(ports); err != nil {
		return err
	}
	// What begins meanwhile is in both.
	err = eachInet(^uint32(0)&^(1<<stateListen), func(s *inetSocket) {
		if ports == nil || slices.Contains(ports, s.local.Port()) {
			l.told = append(l.told, ends{s.local, s.remote}.arriving())
		}
	})
	if err != nil {
		l.close()
	}
	return err
}

func (l *hush) close() {
	if l.net == nil {
		return
	}
	if l.done != nil {
		<-l.done
	}
	l.net.Close()
	l.net, l.done = nil, nil
}

// receive keeps the source's list.
func (l *hush) receive(r *record.Record) error {
	list, err := decodeLost(r)
	if err == nil && l.got {
		err = errors.New("a second list of connections that are lost")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	l.told, l.got = append(l.told, list...), true
	return nil
}

func decodeLost(r *record.Record) (list []netdrop.Connection, err error) {
	m := &state.LostConnections{}
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return nil, err
	}
	if n := len(m.Connection); r.Entity != 0 || n == 0 || n > mostLost {
		return nil, fmt.Errorf("%d connections that are lost, the limit is %d", n, mostLost)
	}
	for _, c := range m.Connection {
		e, err := decodeEnds(c)
		if err != nil {
			return nil, err
		}
		list = append(list, e.arriving())
	}
	return list, nil
}

// beginHush is called before the first socket is made. It goes on meanwhile: with
// thousands of connections it takes milliseconds.
func (s *Subsystem) beginHush() {
	l := &s.hush
	if l.ofHost {
		ports := s.portsOf().Listeners
		if len(ports) == 0 {
			return
		}
		err := target.InNamespace(s.env.Frame.Task(target.FirstTask).Proc.Path("ns/net"), func() error { return l.make(ports) })
		if err != nil {
			mayTell(err)
		}
	}
	if l.net == nil {
		return
	}
	told, net, done := l.told, l.net, make(chan error, 1)
	if s.kept != nil {
		told = slices.Concat(told, s.kept.all, s.kept.waiting)
	}
	l.done = done
	go func() { done <- net.Begin(told) }()
}

// leaveHush leaves it to the supervisor, when the copy begins.
func (s *Subsystem) leaveHush() {
	l := &s.hush
	if l.net == nil || l.done == nil {
		return
	}
	err := <-l.done
	l.done = nil
	var f *os.File
	if err == nil {
		f, err = l.net.File()
	}
	if err == nil {
		err = errors.Join(s.env.Leave(f, netdrop.HushFor), f.Close())
	}
	if err != nil {
		mayTell(err)
	}
	l.close()
}
