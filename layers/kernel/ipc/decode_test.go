// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func encode(t testing.TB, kind uint32, m proto.Message) *record.Record {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Record{Header: record.Header{Subsystem: Name, Kind: kind, Entity: 1}, Payload: b}
}

// accepts decodes a record by its kind.
func accepts(r *record.Record) (proto.Message, error) {
	switch r.Kind {
	case KindSegment, KindHugeSegment:
		return decodeSegment(r)
	case KindSemaphores:
		return decodeSemaphores(r)
	case KindQueue:
		return decodeQueue(r)
	case KindMessages:
		return decodeMessages(r)
	case KindPosixQueue:
		return decodePosixQueue(r)
	case KindPosixMessages:
		return decodePosixMessages(r)
	}
	return nil, errImage
}

func TestHostileObjectsAreRefused(t *testing.T) {
	good := &state.IpcObject{Id: 3, Key: -5, Mode: 0o600, Uid: 7}
	posix := func(change func(*state.PosixQueue)) *state.PosixQueue {
		q := &state.PosixQueue{Name: []byte("jobs"), Mode: 0o600, MaxMessages: 10, MessageSize: 8192}
		change(q)
		return q
	}
	for name, c := range map[string]struct {
		kind uint32
		m    proto.Message
	}{
		"segment without object":   {KindSegment, &state.SharedSegment{Size: 1}},
		"negative id":              {KindSegment, &state.SharedSegment{Size: 1, Object: &state.IpcObject{Id: -1}}},
		"mode":                     {KindSegment, &state.SharedSegment{Size: 1, Object: &state.IpcObject{Mode: 0o4777}}},
		"empty segment":            {KindSegment, &state.SharedSegment{Object: good}},
		"huge segment":             {KindSegment, &state.SharedSegment{Object: good, Size: target.MaxSize + 1}},
		"huge pages of none":       {KindHugeSegment, &state.SharedSegment{Object: good, Size: 1}},
		"huge pages of 4 kB":       {KindHugeSegment, &state.SharedSegment{Object: good, Size: 1, HugePageSize: 4096}},
		"huge pages of 3 MB":       {KindHugeSegment, &state.SharedSegment{Object: good, Size: 1, HugePageSize: 3 << 20}},
		"huge pages of 1 TB":       {KindHugeSegment, &state.SharedSegment{Object: good, Size: 1, HugePageSize: 1 << 40}},
		"huge pages, called small": {KindSegment, &state.SharedSegment{Object: good, Size: 1, HugePageSize: 2 << 20}},
		"empty of huge pages":      {KindHugeSegment, &state.SharedSegment{Object: good, HugePageSize: 2 << 20}},
		"too large of huge pages":  {KindHugeSegment, &state.SharedSegment{Object: good, Size: 1 << 63, HugePageSize: 2 << 20}},
		"set without semaphores":   {KindSemaphores, &state.SemaphoreSet{Object: good}},
		"too many semaphores":      {KindSemaphores, &state.SemaphoreSet{Object: good, Value: make([]uint32, maxValues+1)}},
		"semaphore's value":        {KindSemaphores, &state.SemaphoreSet{Object: good, Value: []uint32{maxValue + 1}}},
		"queue without object":     {KindQueue, &state.MessageQueue{}},
		"message type 0":           {KindMessages, &state.QueuedMessages{Message: []*state.QueuedMessage{{Text: []byte("x")}}}},
		"queue without name":       {KindPosixQueue, posix(func(q *state.PosixQueue) { q.Name = nil })},
		"queue with path":          {KindPosixQueue, posix(func(q *state.PosixQueue) { q.Name = []byte("../x") })},
		"queue called ..":          {KindPosixQueue, posix(func(q *state.PosixQueue) { q.Name = []byte("..") })},
		"queue with NUL":           {KindPosixQueue, posix(func(q *state.PosixQueue) { q.Name = []byte("a\x00b") })},
		"queue's mode":             {KindPosixQueue, posix(func(q *state.PosixQueue) { q.Mode = 0o4600 })},
		"queue of no messages":     {KindPosixQueue, posix(func(q *state.PosixQueue) { q.MaxMessages = 0 })},
		"priority":                 {KindPosixMessages, &state.QueuedPosixMessages{Message: []*state.QueuedPosixMessage{{Priority: maxPriority + 1}}}},
		"queue of large messages":  {KindPosixQueue, posix(func(q *state.PosixQueue) { q.MessageSize = 1 << 40 })},
	} {
		if _, err := accepts(encode(t, c.kind, c.m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for kind, m := range map[uint32]proto.Message{
		KindSegment:       &state.SharedSegment{Object: good, Size: 100},
		KindHugeSegment:   &state.SharedSegment{Object: good, Size: 100, HugePageSize: 2 << 20},
		KindSemaphores:    &state.SemaphoreSet{Object: good, Value: []uint32{0, maxValue}},
		KindQueue:         &state.MessageQueue{Object: good, MaxBytes: 16384},
		KindMessages:      &state.QueuedMessages{Message: []*state.QueuedMessage{{Type: 1}}},
		KindPosixQueue:    posix(func(*state.PosixQueue) {}),
		KindPosixMessages: &state.QueuedPosixMessages{Message: []*state.QueuedPosixMessage{{Priority: maxPriority}, {Text: []byte("x")}}},
	} {
		if _, err := accepts(encode(t, kind, m)); err != nil {
			t.Errorf("kind %d as the export describes it: %v", kind, err)
		}
	}
}

// Records that contradict those before them are refused before anything is done.
func TestUnannouncedContentIsRefused(t *testing.T) {
	s := New(target.Env{Frame: &target.Frame{OwnIPC: true}})
	s.segments = []*segment{
		{msg: &state.SharedSegment{Object: &state.IpcObject{}, Size: 5000}, fd: 7},
		{msg: &state.SharedSegment{Object: &state.IpcObject{}, Size: 5000, HugePageSize: 2 << 20}, fd: 8},
	}
	for name, r := range map[string]*record.Record{
		"no segment":           {Header: record.Header{Entity: target.ContentEntity(3, 0)}, Payload: []byte("x")},
		"behind the huge page": {Header: record.Header{Entity: target.ContentEntity(2, 2<<20)}, Payload: []byte("x")},
		"over its end":         {Header: record.Header{Entity: target.ContentEntity(2, 2<<20-4096)}, Payload: make([]byte, 4097)},
		"segment 0":            {Header: record.Header{Entity: target.ContentEntity(0, 0)}, Payload: []byte("x")},
		"behind it":            {Header: record.Header{Entity: target.ContentEntity(1, 8192)}, Payload: []byte("x")},
		"longer":               {Header: record.Header{Entity: target.ContentEntity(1, 4096)}, Payload: make([]byte, 905)},
		"empty content":        {Header: record.Header{Entity: target.ContentEntity(1, 0)}},
	} {
		if _, err := s.fill(nil, r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := s.sendMessages(nil, encode(t, KindMessages, &state.QueuedMessages{Message: []*state.QueuedMessage{{Type: 1}}})); err == nil {
		t.Error("messages without a queue: accepted")
	}
	s.posix = []*openQueue{{&state.PosixQueue{MessageSize: 3}, 8}, {&state.PosixQueue{MessageSize: 3}, -1}}
	for name, c := range map[string]struct {
		queue uint64
		text  string
	}{"queue 0": {0, "x"}, "no such queue": {3, "x"}, "a queue that is closed": {2, "x"}, "more than the queue takes": {1, "1234"}} {
		r := encode(t, KindPosixMessages, &state.QueuedPosixMessages{Message: []*state.QueuedPosixMessage{{Text: []byte(c.text)}}})
		if r.Entity = c.queue; s.sendPosixMessages(nil, r) == nil {
			t.Errorf("POSIX messages, %s: accepted", name)
		}
	}
	if s.makePosixQueue(nil, encode(t, KindPosixQueue, &state.PosixQueue{Name: []byte("q"), MaxMessages: 1, MessageSize: 1})) == nil {
		t.Error("a POSIX queue out of its order: accepted")
	}
}

// What a decoder lets through keeps the promises that the import relies on.
func FuzzDecode(f *testing.F) {
	o := &state.IpcObject{Id: 1, Mode: 0o600}
	for kind, m := range map[uint32]proto.Message{
		KindSegment: &state.SharedSegment{Object: o, Size: 1}, KindHugeSegment: &state.SharedSegment{Object: o, Size: 1, HugePageSize: 2 << 20}, KindSemaphores: &state.SemaphoreSet{Object: o, Value: []uint32{1}},
		KindQueue: &state.MessageQueue{Object: o}, KindMessages: &state.QueuedMessages{Message: []*state.QueuedMessage{{Type: 1}}},
		KindPosixQueue:    &state.PosixQueue{Name: []byte("q"), MaxMessages: 1, MessageSize: 1},
		KindPosixMessages: &state.QueuedPosixMessages{Message: []*state.QueuedPosixMessage{{Priority: 1}}},
	} {
		f.Add(kind, encode(f, kind, m).Payload)
	}
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		m, err := accepts(&record.Record{Header: record.Header{Subsystem: Name, Kind: kind, Entity: 1}, Payload: payload})
		if err != nil {
			return
		}
		if o, ok := m.(interface{ GetObject() *state.IpcObject }); ok && (o.GetObject() == nil || o.GetObject().Id < 0 || o.GetObject().Mode > 0o777) {
			t.Fatalf("object %v", m)
		}
		if q, ok := m.(*state.QueuedPosixMessages); ok {
			for _, o := range q.Message {
				if o.Priority > maxPriority {
					t.Fatalf("message %v", o)
				}
			}
		}
		if g, ok := m.(*state.SharedSegment); ok && (g.Size == 0 || g.Size > target.MaxSize) {
			t.Fatalf("segment %v", g)
		}
	})
}
