// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names what could not be carried, while the tasks run.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	out, err := s.env.Source.Survey(ctx, s.inspect)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return out, nil
}

// inspect looks at one process.
func (s *Subsystem) inspect(proc procfs.Task) ([]record.Finding, error) {
	l, err := newLooker(proc, s.env.Source.Init, nil)
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	holder := proc.Pid()
	note := func(fd int, err error) error {
		var r *refusal
		if errors.As(err, &r) {
			out = append(out, record.Finding{Pid: holder, FD: fd, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
			return nil
		}
		return err
	}
	apart, err := target.FindApart(proc)
	if err != nil {
		return nil, err
	}
	threads, tables := firsts(apart)
	if err := note(-1, readable(tables)); err != nil {
		return nil, err
	}
	for _, tid := range threads {
		if _, err := l.workingOf(tid); note(-1, err) != nil && !procfs.IsGone(err) {
			return nil, err
		}
	}
	if _, err := l.working(); note(-1, err) != nil {
		return nil, err
	}
	list, err := s.env.Source.Look(proc.Pid())
	if err != nil {
		return nil, err
	}
	for i := range list {
		d := &list[i]
		if d.Owner() != target.OwnerFile {
			continue
		}
		holder = d.Holder
		f, err := l.classify(d)
		if err == nil {
			err = fileLocks(d, f.msg)
		}
		if procfs.IsGone(err) {
			continue
		}
		if err := note(d.FD, err); err != nil {
			return nil, fmt.Errorf("fd %d: %w", d.FD, err)
		}
	}
	return out, nil
}
