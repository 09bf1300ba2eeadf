// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// verbRepeats is a destination's command to its source: it knows KindRepeated.
const verbRepeats = "repeats"

// Prepare tells the source what it may send, and what huge pages there are. One of an earlier version does not
// know the command, and sends every page.
func (s *Subsystem) Prepare(ctx context.Context) error {
	if s.env.Peer == nil {
		return nil
	}
	if _, err := s.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbRepeats}); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return s.offerHuge(ctx)
}

// Command takes the destination's word, on the source.
func (s *Subsystem) Command(ctx context.Context, c record.Command) (record.Command, error) {
	if s.env.Source != nil && c.Verb == verbHuge {
		return s.huge.answer(ctx, c)
	}
	if s.env.Source != nil && c.Verb == verbHugeSegments {
		s.huge.segmentsCarried()
		return record.Command{To: Name, Verb: c.Verb}, nil
	}
	if s.env.Source == nil || c.Verb != verbRepeats {
		return record.Command{}, fmt.Errorf("memory: command %q is not known here", c.Verb)
	}
	s.repeats.Store(true)
	return record.Command{To: Name, Verb: c.Verb}, nil
}

// receiveRepeated copies pages of the task to where they are repeated. All that came
// before has been written, and nothing else is meanwhile.
func (s *Subsystem) receiveRepeated(ctx context.Context, t *target.Task, l *layout, in *record.Record) (uint64, error) {
	list, err := decodeRepeats(in.Payload)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errLayout, err)
	}
	if !l.mapped || l.space.Mappings != uint32(len(l.mappings)) {
		return 0, fmt.Errorf("%w: pages are repeated before the mappings", errLayout)
	}
	var parts [][]repeat
	var size, total uint64
	for _, r := range list {
		if !l.contains(r.at) || !l.contains(r.source()) {
			return 0, fmt.Errorf("%w: repeated pages %#x-%#x, or their origin %#x, are outside of its mappings", errLayout, r.at.start, r.at.end, r.origin)
		}
		for r.at.bytes() > 0 {
			if len(parts) == 0 || size == chunkBytes || len(parts[len(parts)-1]) == maxVectors {
				parts, size = append(parts, nil), 0
			}
			some := r
			some.at.end = min(r.at.end, r.at.start+chunkBytes-size)
			parts[len(parts)-1] = append(parts[len(parts)-1], some)
			n := some.at.bytes()
			size, total = size+n, total+n
			r.at.start, r.origin = r.at.start+n, r.origin+n
		}
	}
	mem, err := os.Open(t.Proc.Path("mem"))
	if err != nil {
		return 0, fmt.Errorf("open its memory: %w", err)
	}
	defer mem.Close()
	done := make(chan error, 1)
	go func() { done <- s.repeatAll(ctx, t, l, mem, parts) }()
	return total, tracer.WaitFor(done) // the first pages open a fill, which takes the tracer
}

// repeatAll copies parts that each fit a buffer, by all workers.
func (s *Subsystem) repeatAll(ctx context.Context, t *target.Task, l *layout, mem *os.File, parts [][]repeat) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.workers)
	for _, part := range parts {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return s.repeat(t, l, mem, part)
		})
	}
	return g.Wait()
}

// repeat copies pages that fit a buffer.
func (s *Subsystem) repeat(t *target.Task, l *layout, mem *os.File, list []repeat) error {
	from, to := make([]run, len(list)), make([]run, len(list))
	n := uint64(0)
	for i, r := range list {
		from[i], to[i] = r.source(), r.at
		n += r.at.bytes()
	}
	buf := buffers.Get()
	defer buffers.Put(buf)
	data := buf[:n]
	if err := readRuns(t.Pid, mem, len(s.env.Frame.Tasks()) > 1, from, data); err != nil {
		return fmt.Errorf("read pages that are repeated: %w", err)
	}
	return s.writePages(t, l, to, data)
}
