// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Preflight names the mappings that cannot be carried. The tasks run: a
// process that exits meanwhile has nothing left to refuse.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	go s.warm() // while the container still runs
	defer s.huge.ask()()
	out, err := s.env.Source.Survey(ctx, s.preflightProcess)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	list, err := s.env.Source.HugeSegments()
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	s.huge.noteSegments(list)
	trees, err := s.env.Source.HugeTrees()
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	s.huge.noteTrees(trees)
	return out, nil
}

func (s *Subsystem) preflightProcess(p procfs.Task) ([]record.Finding, error) {
	smaps, err := procfs.Consistent(p.Smaps)
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	var failed error
	note := func(err error) {
		var r *refusal
		switch {
		case errors.As(err, &r):
			out = append(out, record.Finding{Pid: p.Pid(), FD: -1, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
		case err != nil && !procfs.IsGone(err) && !errors.Is(err, fs.ErrNotExist): // unmapped meanwhile
			failed = errors.Join(failed, err)
		}
	}
	for i := range smaps {
		if err := recognise(&smaps[i].Mapping); err != nil {
			return nil, err
		}
		s.huge.note(p.Pid(), &smaps[i])
		_, m, err := classify(&smaps[i])
		switch {
		case err != nil:
		case m.GetBacking() == state.Backing_BACKING_FILE:
			_, err = s.locate(p, fileOf(p, &smaps[i].Mapping))
		case m.GetBacking() == state.Backing_BACKING_SYSV:
			err = s.mayAttach(&smaps[i])
		case m.GetBacking() == state.Backing_BACKING_AIO:
			if err = isRing(p, &smaps[i].Mapping); err == nil {
				out = append(out, ringWarning(p, &smaps[i].Mapping))
			}
		}
		note(err)
	}
	exe, err := executableOf(p)
	if err != nil {
		return out, err
	}
	_, err = s.locate(p, exe)
	note(err)
	return out, failed
}
