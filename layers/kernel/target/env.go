// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"os"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// Env is what a subsystem of one event works on. Exactly one of Source and
// Frame is set.
type Env struct {
	Source *Source
	Frame  *Frame
	// Workers is how many goroutines a subsystem may use for bulk work.
	Workers int
	// Options are the policies that the event's request chose, by name. A
	// subsystem documents those it knows and ignores the others: see its Option
	// constants. May be nil.
	Options map[string]string
	// Peer is the other side of a live move, nil for an image.
	Peer Peer
	// Keep has the engine's supervisor hold a duplicate of a descriptor, which
	// outlives the engine, until drop is called. nil: nobody can.
	Keep func(f *os.File) (drop func() error, err error)
	// Leave has it hold a duplicate for a while, whatever becomes of the event, ten
	// minutes at most. nil: nobody can.
	Leave func(f *os.File, d time.Duration) error
}

// Peer is a subsystem's way to the other host, beside the records.
type Peer interface {
	// Command asks the peer of a subsystem (kernel.Commander) and returns its
	// answer.
	Command(ctx context.Context, c record.Command) (record.Command, error)
	// Pull asks the source's subsystem (kernel.Puller) for a piece of state out of
	// turn, on a connection of its own. It waits, as long as ctx allows, for a
	// connection that is gone to be made again. The caller verifies the record
	// and calls release once. On the source it is an error.
	Pull(ctx context.Context, want record.Pull) (r *record.Record, release func(), err error)
}

// OptionExec is the option (annotation io.mig/exec) that says what becomes of
// processes that were started by exec and are connected to a client, which a
// restored container does not have. By default they are carried, their streams
// being as if the client had gone away; ExecRefuse refuses them.
const (
	OptionExec = "exec"
	ExecRefuse = "refuse"
)

// RefusesExec reports whether the request chose ExecRefuse.
func (e *Env) RefusesExec() bool { return e.Options[OptionExec] == ExecRefuse }
