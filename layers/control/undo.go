// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/spec/record"
)

// undo puts the container back: every task that was held goes on, the
// container is released, the medium is closed without a Flush.
func (x *Exporter) undo(ctx context.Context, cause error) (Result, error) {
	at := x.current()
	if err := x.to(StateUndoing); err != nil {
		cause = errors.Join(cause, err)
	}
	undone := errors.Join(x.letGo(ctx, cause), x.failing(ctx, cause), x.close())
	end := StateRolledBack
	if undone != nil {
		end = StateFailed
	}
	return x.conclude(ctx, end, &Error{Side: x.side, At: at, Cause: cause, Undo: undone})
}

// letGo restarts what is held, releases the container and wakes its application,
// each at most once and whatever the context says. cause is why, nil if the event
// goes well. It returns what failed.
func (x *Exporter) letGo(ctx context.Context, cause error) error {
	held := x.held
	x.held = nil
	err := x.every(held, func(id record.ProcessID) error {
		if x.untouchable(id) {
			return fmt.Errorf("process %d was not let go: a call may still be at work in it; it goes on when the engine process ends", id)
		}
		return x.lastCall(ctx, Place{Call: "restart", Process: id}, x.opts.Container.Process(id).Restart)
	})
	if x.touched {
		x.touched = false
		err = errors.Join(err, x.lastCall(ctx, Place{Call: "release"}, x.opts.Container.Release))
	}
	return errors.Join(err, x.wake(ctx, cause))
}

// end ends an event that went past the point of undoing.
func (x *Exporter) end(ctx context.Context, s State, err error) (Result, error) {
	if err == nil {
		return x.conclude(ctx, s, nil)
	}
	e := &Error{Side: x.side, At: x.current(), Cause: err}
	if s == StateHeld {
		// The stream's end is not the image's: what is buffered is dropped, and
		// a copy that runs already asks again over a new connection.
		e.Undo = x.close()
	}
	return x.conclude(ctx, s, e)
}
