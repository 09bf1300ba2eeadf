// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"

	"github.com/io-mig/mig/spec/record"
)

// Commander is a Subsystem that answers commands of its peer on the other host
// (target.Env.Peer). Commands come at any time between the opening of the medium
// and its end, several at once, from goroutines of their own.
type Commander interface {
	Command(ctx context.Context, c record.Command) (record.Command, error)
}

// Puller is a Subsystem that gives out pieces of a source's state to a copy that
// runs already. Pulls come from StageLeft on, several at once, from goroutines
// of their own. The record is sealed by the caller; its payload must stay as it
// is until done is called (which may be nil).
type Puller interface {
	Pull(ctx context.Context, want record.Pull) (r *record.Record, done func(), err error)
}

// Filler is a Subsystem whose state may be left behind at the switch. Fill is
// called on a copy that runs, when the rest has stopped coming: it fetches by
// pulls (target.Env.Peer) what is still missing and returns when nothing is. It
// waits for the source as long as that takes.
type Filler interface {
	Fill(ctx context.Context) error
}

// Keeper is a Subsystem that only keeps its records when they come, and does not
// touch a process before the stages without records.
type Keeper interface {
	Keeps() bool
}

// Untraced is a Subsystem whose Checkpoint reads what others have asked, and what
// /proc shows to everybody: it need not run on the thread that traces a process,
// to which and from which it takes two switches between threads. Where it has to
// ask all the same, it may.
type Untraced interface {
	Untraced() bool
}

// Preparer is a Subsystem that builds on the destination of a move what it can
// before the source is stopped. Prepare is called when the frame has been taken
// over, and before the destination says so.
type Preparer interface {
	Prepare(ctx context.Context) error
}
