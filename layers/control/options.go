// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"io"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// Tuning is what both sides of an event share. Its zero value is usable.
type Tuning struct {
	// Workers bounds the calls that are made at the same time; 0 means 1.
	Workers int
	// Watchdog is how long nothing may advance; 0 means DefaultWatchdog, a
	// negative value none.
	Watchdog time.Duration
	// Moved is how many bytes have gone between the hosts so far, both ways: what
	// their kernels say, not what was handed to a buffer. One long step over a slow
	// link advances as long as it grows. Called some times within Watchdog; it must
	// not block. nil: only steps and records tell.
	Moved func() uint64
	// Grace is how long a cancelled call may take to return before the event
	// goes on without it; 0 means DefaultGrace.
	Grace time.Duration
	// Undo bounds each call of undoing and of ending; 0 means DefaultUndo.
	Undo time.Duration
	// Reside names the place (the thread that traces them) where the steps of
	// processes are made, so that those of a whole stage can be made there one after
	// the other, without a change to it for each. place runs fn and returns its error,
	// or one of its own where fn was not run. nil: there is no one such place, and
	// steps of several processes are made side by side.
	Reside func(ids []record.ProcessID) (place func(fn func() error) error)
	// Await returns when done is closed. It is called in the place of Reside, where
	// whoever closes done may need that place. nil: it just waits.
	Await func(done <-chan struct{})
	// Observer is told of every transition. May be nil.
	Observer Observer
	// Called is told of every call that leaves the event, when it has returned:
	// the finest time line there is. It must not block, and is told by several
	// goroutines at once. May be nil.
	Called func(p Place, began, ended time.Time)
	// Failing is told why the event is being undone, when its tasks are put right
	// and before its medium is closed: the peer's only way to learn the reason.
	// May be nil.
	Failing func(ctx context.Context, cause error)
	// Report receives the subsystems' dumps when the event fails, at most
	// maxDump bytes of each. May be nil.
	Report io.Writer
}

// Defaults of Tuning.
const (
	DefaultWatchdog = 60 * time.Second
	DefaultGrace    = 5 * time.Second
	DefaultUndo     = 30 * time.Second
)

func (t Tuning) withDefaults() Tuning {
	t.Workers = max(t.Workers, 1)
	if t.Watchdog == 0 {
		t.Watchdog = DefaultWatchdog
	}
	if t.Grace <= 0 {
		t.Grace = DefaultGrace
	}
	if t.Undo <= 0 {
		t.Undo = DefaultUndo
	}
	if t.Await == nil {
		t.Await = func(done <-chan struct{}) { <-done }
	}
	return t
}

// Verdict is the outcome of a two-phase switch as its source sees it.
type Verdict uint8

const (
	// VerdictAbort: the destination will never run the copy. The zero value,
	// so that forgetting to decide keeps the source.
	VerdictAbort Verdict = iota
	// VerdictCommit: the destination runs, the source never will again.
	VerdictCommit
	// VerdictDoubt: COMMIT was sent and its fate is unknown. The source stays
	// frozen and whole until the peers have met again.
	VerdictDoubt
)

// ExportOptions describe one export.
type ExportOptions struct {
	Tuning
	Container Container
	// Subsystems in the order in which they export.
	Subsystems []Subsystem
	Medium     Medium
	Strategy   Strategy
	// Leave lets the container run on afterwards. It excludes Switch and a
	// strategy that leaves state behind.
	Leave bool
	// Prepare returns when the destination can take the container. It is called
	// after the pre-flight, while the tasks run. nil: nothing to wait for.
	Prepare func(ctx context.Context) error
	// Quiesce has the application itself come to rest, after the early rounds and
	// before the container is stopped (synchronous quiescing). Its error undoes
	// the event. Wake tells it that this container goes on, with the cause of an
	// event that failed: it is called once when Quiesce was and the tasks were let
	// go. Both nil: the container is stopped without its knowing.
	Quiesce func(ctx context.Context) error
	Wake    func(ctx context.Context, cause error) error
	// Slow slows the running container down: by one step more for each time of the
	// strategy's Slower, from 1 on. 0 lets it run as before, and is called before
	// the tasks are stopped or the event is undone; whoever starts the event has to
	// see to that, too, for the case that this process dies.
	Slow func(ctx context.Context, step int) error
	// Drain is called when what was left behind could not be pushed to the running
	// copy: it returns when the copy has fetched all of it by itself. There is no
	// way back, so no watchdog ends it. nil: the tasks are held.
	Drain func(ctx context.Context) error
	// Switch is the point of decision of a move, called when everything is
	// flushed and the container is sealed. nil decides for the image as soon as
	// it is flushed. If it panics or never returns, the verdict is
	// VerdictDoubt, since COMMIT may have been sent.
	Switch func(ctx context.Context) (Verdict, error)
}

// ImportOptions describe one import.
type ImportOptions struct {
	Tuning
	Container Container
	// Subsystems in the order in which the stages go through them.
	Subsystems []Subsystem
	Medium     Medium
	// Manifest returns the names of the subsystems whose records the stream
	// holds. It is asked before anything is built. nil leaves the discovery to
	// the first record of an unknown subsystem.
	Manifest func(ctx context.Context) ([]string, error)
	// Prepared is called when the frame was taken over: the source may stop its
	// container now. May be nil.
	Prepared func(ctx context.Context) error
	// Ready is called when only the permission to run is missing. It returns
	// nil when the copy is the container from here on (COMMIT was received and
	// written down). nil means at once: a local restore.
	Ready func(ctx context.Context) error
	// Fill is called when what was left behind has stopped coming: it returns when
	// all of it was fetched otherwise. The copy runs, so no watchdog ends it. nil:
	// the import is held.
	Fill func(ctx context.Context) error
	// Running is called when every task was let go. Its error is reported, but
	// the copy runs on. May be nil.
	Running func(ctx context.Context) error
}

// Result is what an event did, also of one that failed.
type Result struct {
	State     State
	Processes int
	Rounds    []Round
	// Records and Bytes of payload that went through the medium.
	Records, Bytes uint64
	Started, Ended time.Time
	// Downtime is the time from the first Hold until the tasks were let go
	// (export that leaves them running), or until the decision. An import's is
	// from the last record before the switch until its tasks ran.
	Downtime time.Duration
	// Warnings of the pre-flight and of later steps, each a line for a person.
	Warnings []string
}

// Round is one pre-copy round.
type Round struct {
	Bytes, Remaining uint64
	Took             time.Duration
}
