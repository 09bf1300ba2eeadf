// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"slices"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// Exporter is one export. See Export.
type Exporter struct {
	*Event
	opts ExportOptions

	// Owned by the event's goroutine:

	// listed are the container's processes, parents first, as they were listed
	// last; held those that Setup holds, in the order of their Setup.
	listed, held []record.ProcessID
	// touched: Hold or List was called, so Release is due.
	touched bool
	// quiesced: Quiesce was called, so Wake is due.
	quiesced bool
	stopped  time.Time
	ahead    bool // early steps were made
	leave    bool // state is left behind at the switch
	closed   bool
}

// NewExport prepares an export without touching anything.
func NewExport(o ExportOptions) *Exporter {
	return &Exporter{Event: newEvent(SideExport, o.Tuning, o.Subsystems), opts: o}
}

// Export runs an export to its end: the container's state goes through the
// medium, and the container runs on (Leave) or is ended. Any failure before the
// decision leaves the container running as before and the medium without a
// Flush. A failure is an *Error; an error that wraps a *StuckError obliges the
// caller to end its process.
func Export(ctx context.Context, o ExportOptions) (Result, error) { return NewExport(o).Run(ctx) }

// Run runs the export. It may be called once.
func (x *Exporter) Run(ctx context.Context) (Result, error) {
	live, stop := x.start(ctx)
	defer stop()
	if err := x.towards(live); err != nil {
		return x.undo(ctx, err)
	}
	if x.opts.Leave {
		return x.resume(ctx, live)
	}
	return x.decide(ctx, live)
}

// towards is everything up to the last record.
func (x *Exporter) towards(ctx context.Context) error {
	for _, part := range []func(context.Context) error{x.preflight, x.prepare, x.early, x.quiesce, x.quiet, x.hold, x.residual} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (x *Exporter) check() error {
	s := x.opts.Strategy
	if err := checkSubsystems(x.opts.Subsystems); err != nil {
		return err
	}
	if (x.opts.Quiesce == nil) != (x.opts.Wake == nil) {
		return &DefectError{What: "an application that is put to rest has to be woken, and no other"}
	}
	if x.opts.Leave && (x.opts.Switch != nil || s.LeaveBehind != LeaveNever) {
		return &DefectError{What: "a container that runs on cannot be moved or have state left behind"}
	}
	if _, ok := x.opts.Container.(Lister); s.Rounds > 0 && !ok {
		return &DefectError{What: "strategy " + s.Name + " needs a container that can list its running processes"}
	}
	if s.Slower > 0 && x.opts.Slow == nil {
		return &DefectError{What: "nobody can slow the container down"}
	}
	x.leave = s.LeaveBehind == LeaveAlways
	return nil
}

// prepare waits until the destination can take the container: nothing is
// stopped for a peer that is still building.
func (x *Exporter) prepare(ctx context.Context) error {
	if x.opts.Prepare == nil {
		return nil
	}
	return x.call(ctx, Place{Call: "prepare"}, x.opts.Prepare)
}

// residual exports what is left of the stopped tasks, subsystem by subsystem.
func (x *Exporter) residual(ctx context.Context) error {
	if err := x.to(StateResidual); err != nil {
		return err
	}
	err := x.stage(ctx, record.StageResidual)
	if err != nil || !x.leave && x.opts.Switch == nil {
		return err
	}
	// A live peer cannot wait for the end of the stream, which comes after the
	// decision.
	return x.call(ctx, Place{Call: "push switch mark"}, func(ctx context.Context) error {
		m := switchMark(x.leave)
		if err := m.Seal(); err != nil {
			return err
		}
		return x.opts.Medium.PushData(ctx, m)
	})
}

// stage runs one stage for every subsystem: what is shared, then the processes
// side by side.
func (x *Exporter) stage(ctx context.Context, st record.Stage) error {
	ctx, cancel := context.WithCancelCause(ctx)
	begun := x.beginAside(ctx, cancel, st)
	defer begun.wait()
	defer cancel(nil)
	return x.sheltered(ctx, func(ctx context.Context) error {
		held := &heldBack{begun: begun, push: x.opts.Medium.PushData, await: x.tune.Await}
		err := x.resident(ctx, x.listed, func(ctx context.Context) error { return x.stageOf(ctx, st, begun, held) })
		if err != nil {
			return err
		}
		if len(begun) == 0 {
			return nil
		}
		// Not in the processes' place, which the steps aside may need.
		return x.call(ctx, Place{Call: "push what waited"}, held.release)
	})
}

// stageOf runs one stage for the subsystems in their order.
func (x *Exporter) stageOf(ctx context.Context, st record.Stage, begun asides, held *heldBack) error {
	for _, sub := range x.opts.Subsystems {
		push := x.opts.Medium.PushData
		if x.behind(begun, sub) {
			push = held.put
		}
		fn := x.exporter(sub, push)
		step := x.shared(st)
		if !begun.has(sub) {
			if err := x.steps(ctx, sub, step, fn); err != nil {
				return err
			}
		}
		if sharedOnly(sub) {
			continue
		}
		err := x.each(ctx, x.listed, func(ctx context.Context, id record.ProcessID) error {
			step := step
			step.Process = id
			return x.steps(ctx, sub, step, fn)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *Exporter) flush(ctx context.Context) error {
	if err := x.to(StateFlushing); err != nil {
		return err
	}
	return x.call(ctx, Place{Call: "flush"}, x.opts.Medium.Flush)
}

func (x *Exporter) close() error {
	if x.closed {
		return nil
	}
	x.closed = true
	return x.lastCall(context.Background(), Place{Call: "close medium"}, func(context.Context) error { return x.opts.Medium.Close() })
}

// LeavesBehind reports whether state stays behind at the switch. It may be asked
// from Switch on.
func (x *Exporter) LeavesBehind() bool { return x.leave }

func (x *Exporter) backward() []record.ProcessID {
	ids := slices.Clone(x.held)
	slices.Reverse(ids)
	return ids
}
