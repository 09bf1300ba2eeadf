// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"io"

	"github.com/io-mig/mig/spec/record"
)

// Subsystem exports and imports one kind of kernel state (the paper's Table 1).
// An instance belongs to one event. Methods are iterative: one call does one
// bounded step. Steps of different processes may run at the same time; steps
// of one process never do. Status may be called at any time.
type Subsystem interface {
	// Name is what the subsystem's records are called by, for example "memory".
	Name() string
	// Checkpoint exports one step's worth of state as records. Whatever it did
	// to a task must be undone by the process's Restart or Cleanup.
	Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error)
	// Restart imports: with a record (StageReceive) it applies or keeps it;
	// without one it does a step of a later stage. The record's payload is
	// valid only during the call.
	Restart(ctx context.Context, step record.Step, in *record.Record) (record.Progress, error)
	// Fault recovers one entity out of turn. A subsystem that cannot says so.
	Fault(ctx context.Context, f record.Fault) error
	// Status is cheap and safe at any time.
	Status() record.Status
	// Dump writes what a person needs after a fatal error.
	Dump(w io.Writer) error
}

// Preflighter is a Subsystem that can tell, while the tasks run and without
// touching them, what it could not carry. Control asks before it freezes.
type Preflighter interface {
	Preflight(ctx context.Context) ([]record.Finding, error)
}

// Quieter is a Subsystem that holds off what comes from outside of the container
// shortly before it is stopped, so that less is under way then. It undoes that when
// the container's Release is called, or its processes are ended. What it returns are
// warnings.
type Quieter interface {
	Quiet(ctx context.Context) ([]record.Finding, error)
}

// ConcurrentReceiver is a Subsystem whose StageReceive steps may run at the
// same time for different entities of one process (memory's page records).
// Records for which it answers false wait for all those before them, and hold
// up all those behind them. Records with equal headers keep their order; where
// different entities may overlap (a page in a later round than the run of pages
// around it), the exporter puts a record that answers false between the rounds.
type ConcurrentReceiver interface {
	Concurrent(h record.Header) bool
}

// AsideExporter is a Subsystem whose shared residual step may run beside those of
// all others, once early steps were made: it reads nothing that they do something
// to, nor they what it does. Its records may come among those of the subsystems
// before it, since the destination has from the early rounds what they need; those
// of the subsystems behind it come behind its own.
type AsideExporter interface {
	Aside() bool
}

// SharedSubsystem is a Subsystem that may have nothing of single processes: then
// its steps are asked for with record.Shared only. A step that does nothing takes
// ten microseconds in which a container stands still.
type SharedSubsystem interface {
	SharedOnly() bool
}

func sharedOnly(sub Subsystem) bool {
	s, ok := sub.(SharedSubsystem)
	return ok && s.SharedOnly()
}

// Command travels beside the records, to the medium or to a subsystem's peer.
type Command = record.Command

// Medium moves records (the paper's Table 2). An instance belongs to one event
// and one direction of data flow. PushData may be called by several workers at
// once; so may PopData.
type Medium interface {
	// PushData takes a sealed record. It may buffer; the payload is the
	// caller's again on return.
	PushData(ctx context.Context, r *record.Record) error
	// PopData returns the next record, io.EOF after the last of a complete
	// stream, and an error that names the place where the stream is damaged.
	// The payload stays valid until release is called, exactly once.
	PopData(ctx context.Context) (r *record.Record, release func(), err error)
	// Command carries control; the answer's meaning belongs to the verb. A
	// verb that the medium does not know is an error that wraps
	// errors.ErrUnsupported.
	Command(ctx context.Context, c Command) (Command, error)
	// Flush returns when everything pushed is safe at the other end or on disk.
	Flush(ctx context.Context) error
	// Close ends the medium's use. Without a Flush after the last push, a
	// writer leaves nothing behind that could be taken for a whole image.
	Close() error
}

// HeadPopper is a Medium that can name the next record before it has read its
// payload. What a live peer sends is then read, checked and imported by one worker
// after the other's turn, and not by all in turn.
type HeadPopper interface {
	// PopHead is PopData up to the payload. load, called once, does the rest; the
	// next record may be popped before it is.
	PopHead(ctx context.Context) (h record.Header, load func(context.Context) (r *record.Record, release func(), err error), err error)
}

// Constructor is what control does to one process (the paper's Table 3).
type Constructor interface {
	// Setup takes hold of the process: the source seizes and stops it, the
	// destination takes over its frame. On error nothing is held; an error that
	// wraps ErrGone says that the process has ended since it was listed.
	Setup(ctx context.Context) error
	// Restart lets it run: the source as if nothing had happened, the
	// destination as the image's task.
	Restart(ctx context.Context) error
	// Cleanup ends it: the source's copy after the switch, the destination's
	// frame after a failure. It may be asked again after an error. On a sealed
	// source it must not wait for the death, which needs the Release that follows.
	Cleanup(ctx context.Context) error
}

// Container is the event's view of its container on this host.
type Container interface {
	// Hold stops the container as a whole (source: the freezer) so that no new
	// process can appear unseen, and lists its processes, parents first. On a
	// destination it lists the frame's one process. It may be asked again after
	// Setup of those it named, until it names no new one.
	Hold(ctx context.Context) ([]record.ProcessID, error)
	// Process is the constructor set of one of them.
	Process(id record.ProcessID) Constructor
	// Seal writes the state that must survive our own death before COMMIT
	// (source: FROZEN). It comes after the last record, since a task in a frozen
	// cgroup v1 answers no remote call. A source that runs on is never sealed.
	Seal(ctx context.Context) error
	// Release undoes Hold and Seal, also a Hold that failed half-way and one whose
	// processes were not set up, for which no Restart is called. On a destination
	// it is called after a failure only.
	Release(ctx context.Context) error
}

// Lister is a Container that can name its processes while they run, with the
// ids that Hold will give them, parents first. Early rounds need it. Release is
// called after it, also where Hold was not.
type Lister interface {
	List(ctx context.Context) ([]record.ProcessID, error)
}
