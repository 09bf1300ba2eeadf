// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
)

// imports: the frame has a namespace of its own that is filled.
func (s *Subsystem) imports() bool { return s.env.Frame.OwnNet && !s.leaves() }

// Prepare builds what the source has now, before it is stopped.
func (s *Subsystem) Prepare(ctx context.Context) error {
	if s.env.Peer == nil {
		return nil
	}
	if !s.imports() {
		return s.compareShared()
	}
	answer, err := s.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbDescribe})
	if err != nil {
		return fmt.Errorf("network: ask the source: %w", err)
	}
	if len(answer.Body) == 0 {
		return nil
	}
	n, err := decode(answer.Body)
	if err != nil {
		return fmt.Errorf("network: of the source: %w", err)
	}
	b, err := s.begin()
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := b.build(n); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if b.request != nil && b.request.Guard != "" {
		if err := Unguard(b.request.Guard); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	return nil
}

// begin makes the builder.
func (s *Subsystem) begin() (*builder, error) {
	if s.builder != nil {
		return s.builder, nil
	}
	f := s.env.Frame
	if err := notOurs(f.Init); err != nil {
		return nil, err
	}
	request, err := s.request()
	if err != nil {
		return nil, err
	}
	mapping, err := network.ParseMapping(s.env.Options[network.OptionMap])
	if err != nil {
		return nil, err
	}
	ns, err := open(f.Init)
	if err != nil {
		return nil, err
	}
	b, err := newBuilder(ns, request, mapping)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	b.rebuild = s.env.Options[network.Option] == network.Rebuild && request == nil
	s.builder = b
	f.AtFailure(b.undo)
	f.AtCommit(b.tie, b.untie)
	return b, nil
}

// request is what the live request gives the namespace, nil if it does not say.
func (s *Subsystem) request() (*network.Request, error) {
	text := s.env.Options[network.OptionRequest]
	if text == "" {
		return nil, nil
	}
	return network.Decode(text)
}

// Restart imports.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Stage == record.StageBuild && step.Process == record.Shared && s.final != nil && s.imports():
		var b *builder
		if b, err = s.begin(); err == nil {
			err = b.build(s.final)
		}
		if err == nil && len(b.lost) > 0 {
			slog.Warn("the container's network could not be made whole", "lost", b.lost)
		}
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("network: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

func (s *Subsystem) receive(r *record.Record) error {
	if r.Kind != KindNetwork && r.Kind != KindPart || r.Process != record.Shared {
		return fmt.Errorf("%s: this kind is not known", r.Header)
	}
	if len(s.parts)+len(r.Payload) > maxEncoded {
		return fmt.Errorf("%s: more than %d bytes", r.Header, maxEncoded)
	}
	s.parts = append(s.parts, r.Payload...)
	if r.Kind == KindPart {
		return nil
	}
	n, err := decode(s.parts)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	s.bytes.Add(uint64(len(s.parts)))
	s.parts, s.final = nil, n
	return nil
}

// notOurs makes sure that nothing of the host is changed, whatever the
// specification says.
func notOurs(pid int) error {
	own, err := ownNetwork(pid)
	if err == nil && !own {
		err = errors.New("the container has no network namespace of its own, against its specification")
	}
	return err
}

// ownNetwork reports whether a process is in another network namespace than we are.
func ownNetwork(pid int) (bool, error) {
	theirs, err := os.Stat(procfs.Host().Process(pid).Path("ns/net"))
	if err != nil {
		return false, err
	}
	ours, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return false, err
	}
	return !os.SameFile(theirs, ours), nil
}
