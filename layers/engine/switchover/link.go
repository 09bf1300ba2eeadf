// SPDX-License-Identifier: Apache-2.0

// Package switchover drives the two-phase switch of a move (package handover):
// it performs the actions of the state machines over a stream's one-way
// commands, and writes the journal.
//
//	source                                destination
//	                            <- PREPARED   the frame stands
//	stops the container, sends what is left
//	sealed and flushed          <- READY      built
//	journal COMMITTED
//	COMMIT ->
//	                                          journal COMMITTED
//	                                          lets the tasks go
//	                                          journal RUNNING
//	                            <- RUNNING
//	journal MOVED
//	ends the tasks
//
// COMMITTED is written by the destination immediately before the first task is
// let go, not when COMMIT arrives: an engine that dies before it has run nothing,
// and can be answered for with ABORTED.
//
// Nothing in this path starts a process, dials or waits for a disk.
package switchover

import (
	"context"
	"fmt"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/medium/stream"
	"github.com/io-mig/mig/spec/record"
)

// receiver of every command of a switch.
const receiver = "control"

// prepared is the verb of a destination whose frame stands. It is no part of
// the two phases: the source stops nothing before.
const prepared = "PREPARED"

// maxReason bounds the text that travels with ABORT and ABORTED, in bytes.
const maxReason = 4 << 10

// Link is what a switch needs of a stream, see stream.Peer.
type Link interface {
	Handle(to string, h stream.Handler)
	Tell(ctx context.Context, c record.Command) error
	Over() <-chan struct{}
	Err() error
}

// Journal writes an entry durably.
type Journal interface {
	Write(e handover.Entry) error
}

// Point is called, if it is set, at each step that another process can see, with
// the step's name. Only tests set it, to die there.
var Point func(name string)

func point(format string, args ...any) {
	if Point != nil {
		Point(fmt.Sprintf(format, args...))
	}
}

// said is one message of the peer.
type said struct {
	message handover.Message
	reason  string
}

// inbox keeps the peer's messages for whoever waits. The switch has six, and
// says none very often: what does not fit is a peer's defect and is dropped, as
// the network might.
type inbox chan said

const inboxSize = 16

func (in inbox) put(s said) {
	select {
	case in <- s:
	default:
	}
}

func parse(verb string) handover.Message {
	for m := handover.Ready; m <= handover.Lost; m++ {
		if m.String() == verb {
			return m
		}
	}
	return 0
}

func tell(ctx context.Context, l Link, m handover.Message, reason string) error {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	return l.Tell(ctx, record.Command{To: receiver, Verb: m.String(), Body: []byte(reason)})
}

// PeerError is why the other side gave up, in its words.
type PeerError struct {
	Side   string
	Reason string
}

func (e *PeerError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("the %s gave up and did not say why", e.Side)
	}
	return fmt.Sprintf("the %s gave up: %q", e.Side, e.Reason)
}
