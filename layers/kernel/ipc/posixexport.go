// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// exportPosixQueues pushes queues and copies of their messages.
func (s *Subsystem) exportPosixQueues(ctx context.Context, init procfs.Task, list []posixQueue, push func(uint32, uint64, proto.Message) error) error {
	for i := range list {
		q, number := &list[i], uint64(i+1)
		uid, gid, err := target.Owner(init, &q.stat)
		if err != nil {
			return err
		}
		if err := push(KindPosixQueue, number, &state.PosixQueue{
			Name: []byte(q.name), Mode: q.stat.Mode & permissions, Uid: uid, Gid: gid,
			MaxMessages: q.attr.maxMessages, MessageSize: q.attr.messageSize,
		}); err != nil {
			return err
		}
		if q.attr.messages == 0 {
			continue
		}
		batch, err := s.copyMessages(ctx, q)
		if err != nil {
			return fmt.Errorf("read the messages of POSIX message queue /%s: %w", q.name, err)
		}
		for _, m := range batch {
			if err := push(KindPosixMessages, number, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyMessages reads a queue while the container is frozen besides: if the engine
// is killed it runs again only when the shim has noticed.
func (s *Subsystem) copyMessages(ctx context.Context, q *posixQueue) (out []*state.QueuedPosixMessages, err error) {
	root, err := queueMount()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	size := batchBytes
	err = s.env.Source.WhileFrozen(ctx, func() error {
		return readMessages(root, q, func(prio uint32, text []byte) error {
			if size+len(text) > batchBytes {
				out, size = append(out, &state.QueuedPosixMessages{}), 0
			}
			m := &state.QueuedPosixMessage{Priority: prio, Text: append([]byte(nil), text...)}
			last := out[len(out)-1]
			last.Message, size = append(last.Message, m), size+len(text)+messageOverhead
			return nil
		})
	})
	return out, err
}
