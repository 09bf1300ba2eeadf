// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// exports: the container has a namespace of its own that goes along.
func (s *Subsystem) exports() bool { return s.env.Source.OwnNet && !s.leaves() }

// cni are the interfaces that CNI plug-ins have made: Preflight has looked at the
// option.
func (s *Subsystem) cni() map[string]string {
	m, _ := network.ParseCNI(s.env.Options[network.OptionCNI])
	return m
}

// changeable: processes of the container can change settings of /proc/sys/net.
func (s *Subsystem) changeable() bool {
	for _, p := range s.env.Source.Files.Masked {
		if p == "/proc/sys" || p == "/proc/sys/net" {
			a := s.env.Source.Allowed
			// It is mounted read-only, but who may mount can have another.
			return a == nil || a.CanReach(unix.CAP_SYS_ADMIN)
		}
	}
	return true
}

// Command answers the destination, which asks before anything is stopped.
func (s *Subsystem) Command(_ context.Context, c record.Command) (record.Command, error) {
	if c.Verb != verbDescribe || s.env.Source == nil {
		return record.Command{}, fmt.Errorf("network: command %q: %w", c.Verb, errors.ErrUnsupported)
	}
	if !s.exports() {
		return record.Command{To: Name, Verb: c.Verb}, nil
	}
	ns, err := open(s.env.Source.Init)
	if err != nil {
		return record.Command{}, err
	}
	defer ns.Close()
	if err := s.watchFrom(ns); err != nil {
		return record.Command{}, fmt.Errorf("network: %w", err)
	}
	n, err := readNamespace(ns, true, s.cni())
	if err != nil {
		return record.Command{}, fmt.Errorf("network: %w", err)
	}
	s.prepareSilence(ns, n)
	if s.returned, err = announcerOf(ns, n, asItIs); err != nil {
		return record.Command{}, fmt.Errorf("network: %w", err)
	}
	whole := true
	b, err := marshal(n)
	if err == nil && len(b) > maxAnswer {
		// Rules are many or few; what is left out comes at the switch.
		n.Netfilter, n.Table = nil, nil
		b, err = marshal(n)
		whole = false
	}
	if err != nil {
		return record.Command{}, fmt.Errorf("network: %w", err)
	}
	s.asked.Store(whole && !s.changeable())
	return record.Command{To: Name, Verb: c.Verb, Body: b}, nil
}

// maxAnswer is what an answer to a command may have, in bytes (wire.MaxBody).
const maxAnswer = 1 << 20

// watchFrom watches the namespace for changes from here on.
func (s *Subsystem) watchFrom(ns *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		return errors.New("the destination asks twice")
	}
	return inside(ns, func() (err error) { s.watch, err = netns.NewWatch(); return err })
}

// prepareSilence makes ready to silence the interfaces. Where that cannot be done
// the source answers ARP until it is ended, which is worth a word.
func (s *Subsystem) prepareSilence(ns *os.File, n *state.Network) {
	var names []string
	for _, l := range n.Link {
		if l.Kind != netns.KindLoopback {
			names = append(names, l.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	silence, err := netns.NewSilence(ns, names)
	if err != nil {
		slog.Warn("the container's network will be heard for a moment while the copy runs", "error", err)
		return
	}
	h, err := netns.Open(ns)
	if err != nil {
		slog.Warn("the original's interfaces stay up for as long as something of it is left", "error", err)
		h = nil
	}
	s.mu.Lock()
	s.silence, s.original = silence, h
	s.mu.Unlock()
}

// fallSilent has the stopped container's network say nothing more, since the copy
// will have its addresses. Nobody's death but the container's own leaves it so:
// see netns.NewSilence.
func (s *Subsystem) fallSilent() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.returned != nil {
		s.env.Source.BeforeRun(s.speakAgain)
	}
	if s.silence == nil {
		return nil
	}
	if s.original != nil {
		s.env.Source.AfterKill(s.takeDown)
	}
	return s.silence.Begin()
}

// speakAgain ends the silence of a container that goes on, and says so, see Announce.
func (s *Subsystem) speakAgain() error {
	err := s.silence.Lift()
	if e := s.returned.Announce(); e != nil {
		slog.Warn("announce the addresses of a container that goes on", "error", e)
	}
	return err
}

// takeDown takes the interfaces of a container that was ended down, before the
// silence ends. Connections that its program has closed may keep its namespace, and
// with it its addresses, for minutes: the kernel sends their ends again and again.
func (s *Subsystem) takeDown() error {
	s.mu.Lock()
	h := s.original
	s.original = nil
	s.mu.Unlock()
	if h == nil {
		return nil
	}
	defer h.Close()
	links, err := h.Links()
	if err != nil {
		return fmt.Errorf("interfaces of the container that has moved: %w", err)
	}
	var errs []error
	for _, l := range links {
		if !l.Loopback() && l.Up() {
			errs = append(errs, h.SetUp(l.Index, false))
		}
	}
	return errors.Join(errs...)
}

// read reads the stopped container's namespace, as far as it may have changed.
func (s *Subsystem) read() (*state.Network, error) {
	s.mu.Lock()
	watch := s.watch
	s.mu.Unlock()
	if watch != nil && s.asked.Load() && !watch.Changed() {
		return &state.Network{AsBefore: true}, nil
	}
	ns, err := open(s.env.Source.Init)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return readNamespace(ns, !s.asked.Load(), s.cni())
}

// partSize is the payload of one record, in bytes.
const partSize = record.MaxPayload / 2

// Checkpoint exports the namespace.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared || !s.exports() {
		return record.Progress{Done: true}, nil
	}
	if err := s.fallSilent(); err != nil {
		return record.Progress{}, fmt.Errorf("network: %w", err)
	}
	n, err := s.read()
	if err != nil {
		return record.Progress{}, fmt.Errorf("network: %w", err)
	}
	b, err := marshal(n)
	if err != nil {
		return record.Progress{}, fmt.Errorf("network: %w", err)
	}
	for len(b) > 0 {
		kind, n := uint32(KindNetwork), len(b)
		if n > partSize {
			kind, n = KindPart, partSize
		}
		if err := out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: kind}, Payload: b[:n]}); err != nil {
			return record.Progress{}, err
		}
		s.bytes.Add(uint64(n))
		b = b[n:]
	}
	return record.Progress{Done: true, Advanced: true}, nil
}
