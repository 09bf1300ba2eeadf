// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// errImage marks records that contradict themselves or each other.
var errImage = errors.New("the image's IPC objects are invalid")

// Limits of what an image may ask for.
const (
	maxValues = 32000 // SEMMSL's default
	maxValue  = 32767 // SEMVMX
	// maxAttr is the kernel's own for a queue of a privileged program
	// (HARD_MSGMAX, HARD_MSGSIZEMAX).
	maxMessages    = 1 << 16
	maxMessageSize = 16 << 20
	maxQueueName   = 255
	// maxPriority is MQ_PRIO_MAX less 1.
	maxPriority = 32767
	// maxText is what a message may have that is carried: it has to fit in a record.
	maxText = record.MaxPayload - 4096
)

func decode(r *record.Record, m proto.Message) error {
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	return nil
}

func checkObject(o *state.IpcObject) error {
	if o == nil || o.Id < 0 || o.Mode&^permissions != 0 {
		return fmt.Errorf("%w: object %v", errImage, o)
	}
	return nil
}

func decodeSegment(r *record.Record) (*state.SharedSegment, error) {
	m := &state.SharedSegment{}
	if err := decode(r, m); err != nil {
		return nil, err
	}
	if m.Size == 0 || m.Size > target.MaxSize {
		return nil, fmt.Errorf("%w: shared memory of %d bytes", errImage, m.Size)
	}
	if huge := r.Kind == KindHugeSegment; huge != (m.HugePageSize > 0) || huge && !target.ValidHugeSize(m.HugePageSize) {
		return nil, fmt.Errorf("%w: shared memory of kind %d with huge pages of %d bytes", errImage, r.Kind, m.HugePageSize)
	}
	return m, checkObject(m.Object)
}

func decodeSemaphores(r *record.Record) (*state.SemaphoreSet, error) {
	m := &state.SemaphoreSet{}
	if err := decode(r, m); err != nil {
		return nil, err
	}
	if len(m.Value) == 0 || len(m.Value) > maxValues {
		return nil, fmt.Errorf("%w: a set of %d semaphores", errImage, len(m.Value))
	}
	for _, v := range m.Value {
		if v > maxValue {
			return nil, fmt.Errorf("%w: a semaphore of %d", errImage, v)
		}
	}
	return m, checkObject(m.Object)
}

func decodeQueue(r *record.Record) (*state.MessageQueue, error) {
	m := &state.MessageQueue{}
	if err := decode(r, m); err != nil {
		return nil, err
	}
	return m, checkObject(m.Object)
}

func decodeMessages(r *record.Record) (*state.QueuedMessages, error) {
	m := &state.QueuedMessages{}
	if err := decode(r, m); err != nil {
		return nil, err
	}
	for _, q := range m.Message {
		if q.Type <= 0 {
			return nil, fmt.Errorf("%w: a message of type %d", errImage, q.Type)
		}
	}
	return m, nil
}

func decodePosixQueue(r *record.Record) (*state.PosixQueue, error) {
	m := &state.PosixQueue{}
	if err := decode(r, m); err != nil {
		return nil, err
	}
	n := m.Name
	if len(n) == 0 || len(n) > maxQueueName || bytes.ContainsAny(n, "/\x00") || string(n) == "." || string(n) == ".." {
		return nil, fmt.Errorf("%w: a POSIX message queue called %q", errImage, n)
	}
	if m.Mode&^permissions != 0 || m.MaxMessages <= 0 || m.MaxMessages > maxMessages || m.MessageSize <= 0 || m.MessageSize > maxMessageSize {
		return nil, fmt.Errorf("%w: POSIX message queue %q of mode %#o for %d messages of %d bytes", errImage, n, m.Mode, m.MaxMessages, m.MessageSize)
	}
	return m, nil
}

func decodePosixMessages(r *record.Record) (*state.QueuedPosixMessages, error) {
	m := &state.QueuedPosixMessages{}
	if err := decode(r, m); err != nil {
		return nil, err
	}
	for _, q := range m.Message {
		if q.Priority > maxPriority {
			return nil, fmt.Errorf("%w: a message of priority %d", errImage, q.Priority)
		}
	}
	return m, nil
}
