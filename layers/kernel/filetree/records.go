// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	// batchBytes is when a message of items is complete.
	batchBytes = 1 << 20
	// maxBatch is the most that one can have: less than that, and the largest
	// item behind it.
	maxBatch = batchBytes + readBytes + maxEntry
)

// A record's payload must hold the largest batch.
const _ = uint(record.MaxPayload - maxBatch)

// Batch collects items as bytes of a state.TreeItems. What is added is encoded
// at once, so nothing is kept of it.
type Batch struct {
	buf []byte
	// Push takes a message, which is the batch's again on return.
	Push func([]byte) error
}

// Add is an Emit.
func (b *Batch) Add(item *state.TreeItem) error {
	const field = 1 // TreeItems.item
	b.buf = protowire.AppendTag(b.buf, field, protowire.BytesType)
	b.buf = protowire.AppendVarint(b.buf, uint64(proto.Size(item)))
	var err error
	if b.buf, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b.buf, item); err != nil {
		return fmt.Errorf("encode an item: %w", err)
	}
	if len(b.buf) < batchBytes {
		return nil
	}
	return b.Flush()
}

// Flush pushes what is left.
func (b *Batch) Flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	err := b.Push(b.buf)
	b.buf = b.buf[:0]
	return err
}

// Items decodes a batch. Items keep bytes of it.
func Items(payload []byte) ([]*state.TreeItem, error) {
	m := &state.TreeItems{}
	if err := proto.Unmarshal(payload, m); err != nil {
		return nil, err
	}
	return m.Item, nil
}
