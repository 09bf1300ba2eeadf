// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// pendingCreate is a create that is under way. The service's lock guards it.
type pendingCreate struct {
	// cancel ends what the create waits for.
	cancel context.CancelCauseFunc
	// kept: it is too late to give the create up, its task will be there.
	kept bool
	// done is closed when there is a task, or when nothing is left of it.
	done chan struct{}
}

// errGivenUp: who asked for a task does not want it any more, and will not ask
// for its end again.
var errGivenUp = errors.New("given up by containerd")

// reserve keeps an id for a create, until settle. The context that it returns
// ends when the create is given up.
func (s *service) reserve(ctx context.Context, id string) (context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[id] != nil || s.creates[id] != nil {
		return nil, fmt.Errorf("task %s: %w", id, errdefs.ErrAlreadyExists)
	}
	s.once.Do(func() { close(s.asked) })
	ctx, cancel := context.WithCancelCause(ctx)
	s.creates[id] = &pendingCreate{cancel: cancel, done: make(chan struct{})}
	return ctx, nil
}

// keep decides whether a create that has made its container is still wanted. It
// is the last step that may fail.
func (s *service) keep(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Its end without giveUp is a connection that is closed: containerd itself
	// has died, and its successor ends a shim that has no task.
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("create %s: nobody waits for it any more: %w", id, err)
	}
	s.creates[id].kept = true
	return nil
}

// giveUp ends a create of id, if one is under way, and waits until nothing of it
// is left or, if it was too late, until its task is there. containerd asks for the
// end of a task that it is still creating when its own client has gone away:
// it has forgotten the task by then, and asks once.
func (s *service) giveUp(ctx context.Context, id string) error {
	s.mu.Lock()
	p := s.creates[id]
	if p != nil && !p.kept {
		p.cancel(errGivenUp)
	}
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end the create of %s, which was given up: %w", id, ctx.Err())
	}
}

// settle ends a reservation; t is nil if the create has failed.
func (s *service) settle(id string, t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.creates[id]
	delete(s.creates, id)
	p.cancel(nil)
	close(p.done)
	if t != nil {
		s.tasks[id], s.ending = t, false
		return
	}
	s.endIfTold()
}

// endIfTold ends the server if that was asked for and waited for creates. It
// needs the lock.
func (s *service) endIfTold() {
	if s.ending && len(s.tasks) == 0 && len(s.creates) == 0 {
		s.end()
	}
}

// end ends the server, for whichever reason comes first. It needs the lock.
func (s *service) end() {
	if !s.ended {
		s.ended = true
		s.shutdown()
	}
}
