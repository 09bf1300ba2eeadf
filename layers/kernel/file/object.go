// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// stepBytes is what one export step copies at most.
const stepBytes = 64 << 20

// content is the rest of a nameless file that has to be exported.
type content struct {
	target.Content
	object uint64
	what   string
}

// exportObject returns the id of a nameless file and pushes it if it is new: one
// that is mapped has been among the records of memory.
func (s *Subsystem) exportObject(ctx context.Context, p *target.Process, d *target.Descriptor, msg *state.FileObject, e *export, out record.Sink) (uint64, error) {
	id, first, err := s.env.Source.Object(&d.Stat)
	if err != nil || !first {
		return id, err
	}
	path := d.Path()
	if target.IsMemfd(msg) {
		if msg.Seals, err = target.Seals(path); err != nil {
			return 0, err
		}
	}
	s.total.Add(uint64(d.Stat.Blocks) * 512)
	e.contents = append(e.contents, content{Content: target.Content{Path: path, Sparse: msg.HugePageSize > 0}, object: id, what: describeLink(d)})
	return id, push(ctx, out, record.Header{Kind: KindObject, Entity: id}, msg)
}

// exportContents copies what nameless files hold, up to stepBytes.
func (s *Subsystem) exportContents(ctx context.Context, e *export, out record.Sink) (uint64, error) {
	var copied uint64
	for len(e.contents) > 0 && copied < stepBytes {
		c := &e.contents[0]
		n, done, err := c.Next(stepBytes-copied, func(offset int64, b []byte) error {
			h := record.Header{Subsystem: Name, Kind: KindContent, Entity: target.ContentEntity(c.object, offset)}
			return out.Push(ctx, &record.Record{Header: h, Payload: b})
		})
		if err != nil {
			return copied, fmt.Errorf("content of %s: %w", c.what, err)
		}
		copied += n
		s.bytes.Add(n)
		if done {
			e.contents = e.contents[1:]
		}
	}
	return copied, nil
}
