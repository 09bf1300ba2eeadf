// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
)

// recorder fails the first `failures` deliveries and records the rest.
type recorder struct {
	mu       sync.Mutex
	failures int
	got      []string
}

func (r *recorder) Send(_ context.Context, topic string, _ time.Time, event proto.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures > 0 {
		r.failures--
		return errors.New("containerd is away")
	}
	r.got = append(r.got, fmt.Sprint(topic, " ", event.(interface{ GetContainerID() string }).GetContainerID()))
	return nil
}

func TestQueueKeepsOrderAcrossFailures(t *testing.T) {
	r := &recorder{failures: 3}
	q := NewQueue(r, time.Millisecond)
	q.Put(&eventapi.TaskCreate{ContainerID: "a"})
	q.Put(&eventapi.TaskStart{ContainerID: "a"})
	q.Put(&eventapi.TaskExit{ContainerID: "a"})
	q.Put(&eventapi.TaskDelete{ContainerID: "a"})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := q.Close(ctx); err != nil {
		t.Fatal(err)
	}
	want := "[/tasks/create a /tasks/start a /tasks/exit a /tasks/delete a]"
	if got := fmt.Sprint(r.got); got != want {
		t.Errorf("delivered %s, want %s", got, want)
	}
}

func TestCloseReportsWhatIsLost(t *testing.T) {
	q := NewQueue(&recorder{failures: 1 << 30}, time.Millisecond)
	q.Put(&eventapi.TaskOOM{ContainerID: "a"})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := q.Close(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close = %v, want the deadline's error", err)
	}
}

func TestQueueDropsTheOldestWhenFull(t *testing.T) {
	r := &recorder{failures: 1 << 30}
	q := NewQueue(r, time.Hour)
	defer q.stop()
	for i := range maxQueued + 10 {
		q.Put(&eventapi.TaskOOM{ContainerID: fmt.Sprint(i)})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) != maxQueued {
		t.Errorf("queued %d, want %d", len(q.items), maxQueued)
	}
	if got := q.items[0].event.(*eventapi.TaskOOM).ContainerID; got != "10" {
		t.Errorf("oldest is %s, want 10", got)
	}
}

func TestTopicRefusesOtherMessages(t *testing.T) {
	if topic, err := Topic(&eventapi.ContainerCreate{}); err == nil {
		t.Errorf("Topic = %q, want an error", topic)
	}
}
