// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"fmt"
	"io"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// source is content that goes out in steps.
type source interface {
	// copy pushes up to about limit bytes; io.EOF behind the last.
	copy(ctx context.Context, buf []byte, limit uint64, out record.Sink) (uint64, error)
	name() string
}

// mappedContent is a file whose content travels, on its way out.
type mappedContent struct {
	target.Content
	id   uint64
	what string
}

func (c *mappedContent) name() string { return c.what }

func (c *mappedContent) copy(ctx context.Context, _ []byte, limit uint64, out record.Sink) (uint64, error) {
	n, done, err := c.Next(limit, func(offset int64, b []byte) error {
		h := record.Header{Subsystem: Name, Kind: KindContent, Entity: target.ContentEntity(c.id, offset)}
		return out.Push(ctx, &record.Record{Header: h, Payload: b})
	})
	if err == nil && done {
		err = io.EOF
	}
	return n, err
}

// listFile pushes the description of a mapped or executed file if its content
// travels and nobody has seen it before.
func (s *Subsystem) listFile(ctx context.Context, t procfs.Task, f mappedFile, out record.Sink) error {
	l, err := s.locate(t, f)
	if err != nil || l.object == nil {
		return err
	}
	id, first, err := s.env.Source.Object(&l.stat)
	if err != nil || !first {
		return err
	}
	s.todo = append(s.todo, &mappedContent{Content: target.Content{Path: f.link, Sparse: l.object.HugePageSize > 0}, id: id, what: f.what})
	s.total.Add(uint64(l.stat.Blocks) * 512)
	return pushMessage(ctx, out, record.Header{Subsystem: Name, Kind: KindObject, Entity: id}, l.object)
}

// listFiles does so for all files of one process.
func (s *Subsystem) listFiles(ctx context.Context, t procfs.Task, maps []procfs.Mapping, out record.Sink) error {
	for i := range maps {
		if m := &maps[i]; m.Kind == procfs.MapFile || m.Kind == procfs.MapMemfd {
			if err := s.listFile(ctx, t, fileOf(t, m), out); err != nil {
				return err
			}
		}
	}
	exe, err := executableOf(t)
	if err != nil {
		return err
	}
	return s.listFile(ctx, t, exe, out)
}

// place says by what a restore maps a file: a path or an object.
func (s *Subsystem) place(t procfs.Task, p *procfs.SmapsMapping, m *state.Mapping) error {
	l, err := s.locate(t, fileOf(t, &p.Mapping))
	if err != nil {
		return err
	}
	if l.object == nil {
		m.Path, m.FileSize = l.path, uint64(l.stat.Size)
		return nil
	}
	m.Backing, m.Path = state.Backing_BACKING_OBJECT, ""
	m.Object, err = s.known(l)
	return err
}

// known is the id of an object that was listed.
func (s *Subsystem) known(l *location) (uint64, error) {
	id, first, err := s.env.Source.Object(&l.stat)
	if err == nil && first {
		err = fmt.Errorf("a mapping of %s has appeared while the process was stopped", l.object.Path)
	}
	return id, err
}
