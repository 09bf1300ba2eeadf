// SPDX-License-Identifier: Apache-2.0

// Package events carries a shim's events to containerd, each of them once and
// in the order in which they were put in, also across a restart of containerd.
package events

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// Limits of the queue while containerd does not answer.
const (
	// maxQueued bounds the memory: beyond it the oldest event is dropped.
	maxQueued = 2048
	// maxAge is how long an event is worth sending. A daemon that restarts
	// asks the shims for their state, so old events tell it nothing.
	maxAge = 60 * time.Second
)

// Sender delivers one event, or says why not. It is called by one goroutine.
type Sender interface {
	Send(ctx context.Context, topic string, at time.Time, event proto.Message) error
}

type item struct {
	topic string
	at    time.Time
	event proto.Message
}

// Queue is unbounded for its users: Put never waits. Create it with NewQueue.
type Queue struct {
	sender Sender
	retry  time.Duration

	mu      sync.Mutex
	items   []item
	closed  bool
	changed chan struct{} // capacity 1: something happened
	done    chan struct{} // closed when the goroutine has ended
	stop    context.CancelFunc
}

// NewQueue starts delivering to sender. retry is the pause after a failure.
func NewQueue(sender Sender, retry time.Duration) *Queue {
	ctx, stop := context.WithCancel(context.Background())
	q := &Queue{sender: sender, retry: retry, stop: stop,
		changed: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run(ctx)
	return q
}

// Put appends an event. It must be one that Topic knows; the message must not
// be changed afterwards.
func (q *Queue) Put(event proto.Message) {
	topic, err := Topic(event)
	if err != nil {
		slog.Error("event dropped", "error", err)
		return
	}
	q.mu.Lock()
	if len(q.items) >= maxQueued {
		slog.Error("event dropped: containerd does not answer", "topic", q.items[0].topic, "queued", len(q.items))
		q.items = q.items[1:]
	}
	q.items = append(q.items, item{topic, time.Now(), event})
	q.mu.Unlock()
	q.wake()
}

// Close delivers what is queued for as long as ctx allows, and ends.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake()
	defer q.stop()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		q.mu.Lock()
		defer q.mu.Unlock()
		return fmt.Errorf("%d events were not delivered: %w", len(q.items), ctx.Err())
	}
}

func (q *Queue) wake() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// head is the event to send next; ok is false if there is none, end if there
// will be none.
func (q *Queue) head() (i item, ok, end bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return item{}, false, q.closed
	}
	return q.items[0], true, false
}

// pop removes the head, unless Put has dropped it in the meantime.
func (q *Queue) pop(sent item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 && q.items[0].event == sent.event {
		q.items[0] = item{}
		q.items = q.items[1:]
	}
}

func (q *Queue) run(ctx context.Context) {
	defer close(q.done)
	for {
		i, ok, end := q.head()
		switch {
		case end:
			return
		case !ok:
			select {
			case <-q.changed:
			case <-ctx.Done():
				return
			}
			continue
		}
		err := q.sender.Send(ctx, i.topic, i.at, i.event)
		if err == nil {
			q.pop(i)
			continue
		}
		if time.Since(i.at) > maxAge {
			slog.Error("event dropped", "topic", i.topic, "error", err)
			q.pop(i)
			continue
		}
		slog.Warn("event not delivered yet", "topic", i.topic, "error", err)
		select {
		case <-time.After(q.retry):
		case <-ctx.Done():
			return
		}
	}
}
