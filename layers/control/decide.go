// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// cleanupTries is how often a task that must end is told so.
const cleanupTries = 3

// resume lets the container run on, then makes its image safe. A task that
// cannot be let go does not make the image worse: it is flushed all the same.
func (x *Exporter) resume(ctx, live context.Context) (Result, error) {
	if err := x.to(StateResuming); err != nil {
		return x.undo(ctx, err)
	}
	stopped := x.letGo(ctx, nil)
	x.update(func(r *Result) { r.Downtime = time.Since(x.stopped) })
	err := x.flush(live)
	if err != nil && stopped == nil {
		return x.undo(ctx, err)
	}
	if err := errors.Join(stopped, err, x.close()); err != nil {
		return x.end(ctx, StateFailed, err)
	}
	return x.end(ctx, StateDone, nil)
}

// decide seals and flushes, asks for the verdict and acts on it.
func (x *Exporter) decide(ctx, live context.Context) (Result, error) {
	if err := x.to(StateSealing); err != nil {
		return x.undo(ctx, err)
	}
	if err := x.call(live, Place{Call: "seal"}, x.opts.Container.Seal); err != nil {
		return x.undo(ctx, err)
	}
	if err := x.flush(live); err != nil {
		return x.undo(ctx, err)
	}
	if err := x.to(StateSwitching); err != nil {
		return x.undo(ctx, err)
	}
	verdict, err := x.verdict(live)
	x.update(func(r *Result) { r.Downtime = time.Since(x.stopped) })
	switch verdict {
	case VerdictCommit:
		return x.after(ctx, err)
	case VerdictAbort:
		if err == nil {
			err = errors.New("the destination refused the copy")
		}
		return x.undo(ctx, err)
	}
	if err == nil {
		err = errors.New("the fate of COMMIT is unknown")
	}
	return x.end(ctx, StateHeld, fmt.Errorf("the container stays frozen until both sides have met again: %w", err))
}

// verdict asks the hook. What it leaves open counts as doubt: COMMIT may have
// been sent.
func (x *Exporter) verdict(ctx context.Context) (Verdict, error) {
	if err := context.Cause(ctx); err != nil {
		return VerdictAbort, err
	}
	if x.opts.Switch == nil {
		return VerdictCommit, nil
	}
	answer := make(chan Verdict, 1)
	err := x.call(ctx, Place{Call: "switch"}, func(ctx context.Context) error {
		v, err := x.opts.Switch(ctx)
		answer <- v
		return err
	})
	select {
	case v := <-answer:
		return v, err
	default:
		return VerdictDoubt, err
	}
}

// after is what follows the decision. There is no way back: the caller's
// context no longer counts, and what fails leaves the source frozen.
func (x *Exporter) after(ctx context.Context, early error) (Result, error) {
	ctx, stop := x.start(context.WithoutCancel(ctx))
	defer stop()
	if err := x.to(StateDecided); err != nil {
		return x.end(ctx, StateHeld, err)
	}
	if x.leave {
		err := x.pushLeft(ctx)
		if err != nil {
			err = x.drain(ctx, err)
		}
		if err != nil {
			return x.end(ctx, StateHeld, fmt.Errorf("the copy runs and waits for state of this container, which stays frozen: %w", err))
		}
	}
	if err := x.to(StateCleaning); err != nil {
		return x.end(ctx, StateHeld, err)
	}
	if err := x.endTasks(ctx); err != nil {
		return x.end(ctx, StateHeld, fmt.Errorf("the copy is the container now, but this one could not be ended (it takes no step; kill it if it is still there): %w", errors.Join(err, early)))
	}
	if err := errors.Join(early, x.close()); err != nil {
		return x.end(ctx, StateFailed, fmt.Errorf("the container was exported and ended, but: %w", err))
	}
	return x.end(ctx, StateDone, nil)
}

// drain waits for the copy to fetch what could not be pushed.
func (x *Exporter) drain(ctx context.Context, cause error) error {
	if x.opts.Drain == nil || x.current() != StateLeft {
		return cause
	}
	x.update(func(r *Result) { r.Warnings = append(r.Warnings, cause.Error()) })
	x.quit()
	err := x.call(context.WithoutCancel(ctx), Place{Call: "drain"}, x.opts.Drain)
	if err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

// pushLeft exports what the copy still lacks.
func (x *Exporter) pushLeft(ctx context.Context) error {
	if err := x.to(StateLeft); err != nil {
		return err
	}
	if err := x.stage(ctx, record.StageLeft); err != nil {
		return err
	}
	return x.call(ctx, Place{Call: "flush"}, x.opts.Medium.Flush)
}

// endTasks ends every process, children first, and thaws the container, since
// a frozen task cannot even die. It does not thaw if one of them could go on.
func (x *Exporter) endTasks(ctx context.Context) error {
	var errs []error
	for _, id := range x.backward() {
		errs = append(errs, x.endTask(ctx, id))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return x.lastCall(ctx, Place{Call: "release"}, x.opts.Container.Release)
}

func (x *Exporter) endTask(ctx context.Context, id record.ProcessID) (err error) {
	for range cleanupTries {
		if x.untouchable(id) {
			return err
		}
		if err = x.lastCall(ctx, Place{Call: "cleanup", Process: id}, x.opts.Container.Process(id).Cleanup); err == nil {
			return nil
		}
	}
	return err
}
