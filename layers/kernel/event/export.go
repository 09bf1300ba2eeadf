// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Checkpoint exports the descriptions of one process that nobody has seen
// before.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process == record.Shared {
		return record.Progress{Done: true}, nil
	}
	p, err := s.env.Source.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("event: %w", err)
	}
	list, err := p.Descriptors()
	if err != nil {
		return record.Progress{}, fmt.Errorf("event: %w", err)
	}
	var n uint64
	for i := range list {
		d := &list[i]
		if !d.First || d.Owner() != target.OwnerEvent {
			continue
		}
		if err := s.export(ctx, p, d, out); err != nil {
			return record.Progress{}, fmt.Errorf("event: pid %d: fd %d: %w", p.Pid, d.FD, err)
		}
		n++
	}
	s.entities.Add(n)
	return record.Progress{Done: true, Advanced: true, Entities: n}, nil
}

func (s *Subsystem) export(ctx context.Context, p *target.Process, d *target.Descriptor, out record.Sink) error {
	if isTimer(d) {
		if err := count(p, d); err != nil {
			return err
		}
	}
	kind, msg, err := classify(d, s.env.Source.Init)
	if err != nil {
		return err
	}
	if poll, ok := msg.(*state.EventPoll); ok {
		if err := s.targets(p, d, poll); err != nil {
			return err
		}
	}
	if m, ok := msg.(*state.EventProcess); ok && m.Pid == 0 {
		if err := s.describeEnded(p, d, m); err != nil {
			return err
		}
	}
	switch m := msg.(type) {
	case *state.EventFiles:
		err = s.describeFiles(d, m)
	case *state.EventGroup:
		if err = s.describeGroup(d, m); err == nil {
			m.Unprivileged, err = unprivileged(p, m)
		}
	}
	if err != nil {
		return err
	}
	b, err := proto.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	h := record.Header{Subsystem: Name, Kind: kind, Entity: d.Description}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}

// targets finds what an epoll instance watches. The kernel shows the number at
// which a file was registered, which may be closed or another file's by now.
func (s *Subsystem) targets(p *target.Process, d *target.Descriptor, msg *state.EventPoll) error {
	seen := map[int]int{} // registrations by number so far
	for _, t := range d.Info.Epoll {
		nth := seen[t.FD]
		seen[t.FD]++
		desc, err := s.watched(p, d, t, nth)
		if err != nil {
			return err
		}
		if desc == 0 {
			return &refusal{
				"epoll instance", fmt.Sprintf("it watches a file under number %d that no descriptor of the container leads to any more", t.FD),
				"remove the registration before closing its descriptor",
			}
		}
		msg.Target = append(msg.Target, &state.PollTarget{
			Fd: uint32(t.FD), Description: desc, Events: t.Events, Data: t.Data, Process: uint32(p.ID),
		})
	}
	return nil
}

// watched returns the description of a registration, 0 if there is none: first
// by the number itself, then by every descriptor of a file with that inode, in
// the process and in the others.
func (s *Subsystem) watched(p *target.Process, poll *target.Descriptor, t procfs.EpollTarget, nth int) (uint64, error) {
	if desc, err := s.watchedIn(p, poll, t, nth, true); err != nil || desc != 0 {
		return desc, err
	}
	for _, q := range s.env.Source.Processes() {
		if desc, err := s.watchedIn(q, poll, t, nth, false); err != nil || desc != 0 {
			return desc, err
		}
	}
	return 0, nil
}

func (s *Subsystem) watchedIn(q *target.Process, poll *target.Descriptor, t procfs.EpollTarget, nth int, exact bool) (uint64, error) {
	list, err := q.Descriptors()
	if err != nil {
		return 0, err
	}
	for i := range list {
		c := &list[i]
		if exact && c.FD != t.FD || c.Stat.Ino != t.Ino || c.Flags&unix.O_PATH != 0 {
			continue
		}
		same, err := c.WatchedBy(poll, t.FD, nth)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBADF) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if same {
			return c.Description, nil
		}
	}
	return 0, nil
}
