// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// eventSink takes events; it must not wait. Implemented by events.Queue.
type eventSink interface{ Put(event proto.Message) }

// service is the task API for the containers of one group.
type service struct {
	namespace string
	events    eventSink
	migrator  Migrator // nil: checkpoints and restores are refused
	// daemon is containerd's address, for a coordinator that is started.
	daemon string
	// coordinate is runCoordinator, but in tests.
	coordinate func(ctx context.Context, id, image string) error
	// newContainer is createNative, but in tests.
	newContainer creator
	// shutdown ends the server; it must not wait.
	shutdown func()

	mu    sync.Mutex
	tasks map[string]*task
	// creates are the ids that are just being created.
	creates map[string]*pendingCreate
	// asked is closed with the first create.
	asked chan struct{}
	once  sync.Once
	// ending: the server was told to shut down while a create was under way. Who
	// asked has given the create up and asks no second time.
	ending bool
	// ended: shutdown was called.
	ended bool
	// forgetting: removeForgotten is at work, until the time in forgetUntil.
	forgetting  bool
	forgetUntil time.Time
}

func newService(namespace string, events eventSink, m Migrator, shutdown func()) *service {
	s := &service{namespace: namespace, events: events, migrator: m, shutdown: shutdown,
		newContainer: createNative,
		tasks:        make(map[string]*task),
		creates:      make(map[string]*pendingCreate),
		asked:        make(chan struct{})}
	s.coordinate = s.runCoordinator
	return s
}

func (s *service) task(id string) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[id]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("container not created: %w", errdefs.ErrNotFound)
}

// find is the task and one of its processes.
func (s *service) find(id, execID string) (*task, *process, error) {
	t, err := s.task(id)
	if err != nil {
		return nil, nil, err
	}
	p, err := t.process(execID)
	return t, p, err
}
