// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Concurrent says that pages of different records may be written at the same time. The
// layout comes before them, on its own.
func (s *Subsystem) Concurrent(h record.Header) bool {
	return h.Kind == KindPages || h.Kind == KindScattered
}

// Restart imports: the layout is mapped as soon as it is whole, pages go
// straight into it, and StageBuild gives the mappings their final form.
func (s *Subsystem) Restart(ctx context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	if step.Process == record.Shared {
		switch {
		case in != nil:
			return s.receiveShared(in)
		case step.Stage == record.StageBuild:
			return record.Progress{Done: true}, errors.Join(s.closeShared(), s.settleExecutables())
		case step.Stage == record.StageJoin:
			// By now the subsystem of files has opened those that are open, too.
			return record.Progress{Done: true}, s.finishFiles()
		}
		return record.Progress{Done: true}, nil
	}
	if in != nil {
		if t := s.env.Frame.Task(step.Process); t != nil && t.Traced == nil {
			if l := s.layout(t); l.filler != nil {
				pr, err := s.receiveLate(l, in)
				if err != nil {
					err = fmt.Errorf("memory: process %d: %w", t.ID, err)
				}
				return pr, err
			}
		}
	}
	t, err := s.env.Frame.Need(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("memory: %w", err)
	}
	if t == nil || t.Traced == nil {
		return record.Progress{}, fmt.Errorf("memory: process %d: %w", step.Process, target.ErrNotStopped)
	}
	if t.Space() != t {
		return s.restartSharer(t, step, in)
	}
	l := s.layout(t)
	switch {
	case in != nil:
		return s.receive(ctx, t, l, in)
	case step.Stage == record.StageBuild:
		defer t.LockTable()()
		return s.build(t, l)
	case step.Stage == record.StageResume:
		if err := seal(t, l); err != nil {
			return record.Progress{}, fmt.Errorf("memory: process %d: %w", t.ID, err)
		}
	}
	return record.Progress{Done: true}, nil
}

// restartSharer is Restart for a process that has its memory in common with another
// one, to which all records of it belong.
func (s *Subsystem) restartSharer(t *target.Task, step record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{}, fmt.Errorf("%w: %s: process %d has the memory of process %d", errLayout, in.Header, t.ID, t.Space().ID)
	}
	if step.Stage == record.StageBuild {
		if err := t.Prepare(nil); err != nil {
			return record.Progress{}, fmt.Errorf("memory: process %d: %w", t.ID, err)
		}
	}
	return record.Progress{Done: true}, nil
}

// layout is that of a task. One that was made anew begins anew.
func (s *Subsystem) layout(t *target.Task) *layout {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.imports[t.ID]; l != nil && l.task == t {
		return l
	} else if l != nil {
		_ = l.fill.close() // of a process that has ended
	}
	l := &layout{task: t}
	s.imports[t.ID] = l
	return l
}

// receive takes one record.
func (s *Subsystem) receive(ctx context.Context, t *target.Task, l *layout, in *record.Record) (record.Progress, error) {
	p := record.Progress{Done: true, Advanced: true, Entities: 1}
	switch in.Kind {
	case KindAddressSpace:
		return p, l.receiveSpace(in.Payload)
	case KindInherited:
		return p, s.receiveInherited(l, t.ID, in.Payload)
	case KindMappings:
		whole, err := l.receiveMappings(in.Payload)
		if err != nil || !whole {
			return p, err
		}
		if err := s.mapAll(t, l); err != nil {
			return p, fmt.Errorf("memory: process %d: %w", t.ID, err)
		}
		s.entities.Add(uint64(len(l.mappings)))
		return p, nil
	case KindDropped:
		if err := s.receiveDropped(t, l, in); err != nil {
			return p, fmt.Errorf("memory: process %d: %w", t.ID, err)
		}
		return p, nil
	case KindRepeated:
		n, err := s.receiveRepeated(ctx, t, l, in)
		if err != nil {
			return p, fmt.Errorf("memory: process %d: %w", t.ID, err)
		}
		p.Bytes = n
		return p, nil
	case KindLeft:
		if err := s.receiveLeft(t, l, in); err != nil {
			return p, fmt.Errorf("memory: process %d: %w", t.ID, err)
		}
		return p, nil
	case KindPages, KindScattered:
		runs, data, err := l.pageRuns(in)
		if err != nil {
			return p, err
		}
		if err := s.writePages(t, l, runs, data); err != nil {
			return p, fmt.Errorf("memory: process %d: %w", t.ID, err)
		}
		p.Bytes = uint64(len(data))
		return p, nil
	}
	return p, fmt.Errorf("%w: %s: this version knows no such kind", errLayout, in.Header)
}

// writePages fills pages of the task.
func (s *Subsystem) writePages(t *target.Task, l *layout, runs []run, data []byte) error {
	if len(data) >= fastFrom {
		if err := l.fill.open(t, l); err != nil {
			return err
		}
	}
	l.version.Add(1)
	if err := l.populate(t, runs); err != nil {
		return err
	}
	if err := l.fill.write(t.Pid, runs, data); err != nil {
		return err
	}
	s.bytes.Add(uint64(len(data)))
	return nil
}

// build gives the mappings their protections and whatever else must come after
// the fill.
func (s *Subsystem) build(t *target.Task, l *layout) (record.Progress, error) {
	if l.built {
		return record.Progress{Done: true}, nil
	}
	if !l.mapped {
		return record.Progress{}, fmt.Errorf("%w: process %d has no whole memory layout", errLayout, t.ID)
	}
	if err := l.fill.close(); err != nil {
		return record.Progress{}, fmt.Errorf("memory: process %d: end its fill: %w", t.ID, err)
	}
	if err := s.finish(t, l); err != nil {
		return record.Progress{}, fmt.Errorf("memory: process %d: %w", t.ID, err)
	}
	l.built = true
	if err := s.serveLeft(t, l); err != nil {
		return record.Progress{}, fmt.Errorf("memory: process %d: %w", t.ID, err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// receiveLate takes what was left behind, when the copy runs.
func (s *Subsystem) receiveLate(l *layout, in *record.Record) (record.Progress, error) {
	p := record.Progress{Done: true, Advanced: true, Entities: 1}
	if in.Kind == KindFilled {
		return p, l.filler.end()
	}
	if in.Kind != KindPages && in.Kind != KindScattered {
		return p, fmt.Errorf("%w: %s comes after the switch", errLayout, in.Header)
	}
	runs, data, err := l.pageRuns(in)
	if err != nil {
		return p, err
	}
	p.Bytes = uint64(len(data))
	s.bytes.Add(p.Bytes)
	return p, l.filler.arrive(runs, data)
}
