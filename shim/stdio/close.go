// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Exited tells that the process is gone: what its terminal holds is still
// copied, but nothing is waited for any more, even if a left-over process keeps
// the terminal open.
func (s *Streams) Exited() {
	s.mu.Lock()
	c := s.console
	s.mu.Unlock()
	if c != nil {
		c.finish()
	}
}

// Drain waits until all output has been copied, as long as ctx allows.
func (s *Streams) Drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.outputs.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("output is still open, another process may hold it: %w", ctx.Err())
	}
}

// Close ends all copying and a logging program. Call Drain before it.
func (s *Streams) Close() error {
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	s.closed = true
	s.mu.Unlock()
	s.Started()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		if err := closers[i](); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
