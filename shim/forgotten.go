// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

// forgottenFor is how long after it was told to shut down a server that still has
// tasks looks whether containerd has forgotten them.
const forgottenFor = 2 * time.Minute

// watchForgotten starts removeForgotten, or has it go on for longer. It needs the
// lock.
func (s *service) watchForgotten() {
	s.forgetUntil = time.Now().Add(forgottenFor)
	if !s.forgetting {
		s.forgetting = true
		go s.removeForgotten()
	}
}

// removeForgotten deletes tasks whose bundles are gone; the server ends behind the
// last one (endIfEmpty). A delete that fails, or takes longer than containerd waits, is not
// repeated: containerd has the action `delete` kill the container, removes the
// bundle and forgets the shim, which would keep the socket, and with it the id, for
// ever. Tasks of a pod whose bundles are there are not concerned.
func (s *service) removeForgotten() {
	for s.goesOn() {
		time.Sleep(orphanCheck)
		for _, t := range s.all() {
			if _, err := os.Lstat(t.bundle); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
			err := s.deleteTask(ctx, t)
			cancel()
			if err != nil {
				slog.Warn("containerd has forgotten a task, which cannot be removed yet", "container", t.id, "error", err)
				continue
			}
			slog.Info("containerd had forgotten a task: removed", "container", t.id)
		}
	}
}

// goesOn tells whether there is something to watch.
func (s *service) goesOn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetting = len(s.tasks) > 0 && time.Now().Before(s.forgetUntil)
	return s.forgetting
}

func (s *service) all() (list []*task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		list = append(list, t)
	}
	return list
}
