// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/netdrop"
)

// A connection that both programs have closed goes on in the kernels for a while: an
// end that has sent everything waits for the other's FIN (FIN_WAIT2), or for copies of
// it that are late (TIME_WAIT), or for the acknowledgment of its own. Nobody has a
// descriptor of it, by which its numbers could be read, so the copy's kernel cannot have
// it, and would answer what the other end still sends by a reset. No program could
// notice, but filters and logs on the way would, and it is not said for nothing that
// none is sent. So the copy's network resets no connection that it never had, for as
// long as a kernel would send something again (netdrop.Hush): which those are nobody has
// to list, while they come and go. The other end, which hears no acknowledgment, gives
// up by itself, as it does behind a network that has lost it.
//
// Told all the same are the other ends of connections that are lost: those of which
// something was never sent, or which were being opened.
//
//	destination  asks (verbLost), before anything is stopped, and notes what is opened
//	source       stopped: lists what is lost (KindLost)
//	destination  hushes, before anything comes in; its supervisor sees to the end

// verbLost is a destination's command to its source: it knows KindLost.
const verbLost = "lost"

// lateStates are those of connections that have ended for their program, but for
// TIME_WAIT, of which there may be tens of thousands, and in which nothing is lost.
const lateStates = 1<<stateFinWait1 | 1<<stateFinWait2 | 1<<stateClosing | 1<<stateLastAck

// mostLost bounds how many are carried. Who is not among them is told nothing for as
// long as the others are not.
const mostLost = 2048

// hush is what one event does about them.
type hush struct {
	// Of an export. asked: the destination knows the record.
	asked atomic.Bool
	// begun are the connections that had not ended when new ones began to be held off,
	// so that the switch need not look through all of a host's.
	begun []ends

	// Of an import. net is nil where nobody can be kept from telling, or not yet, or
	// not any more.
	net *netdrop.Hush
	// ofHost: the network is the host's, with others' connections, so that some ports
	// are meant, which are known later.
	ofHost bool
	// told are connections that may be reset: those that there were in the network
	// before, and those that are lost.
	told []netdrop.Connection
	got  bool       // the source's list
	done chan error // what became of beginHush; nil: it has not begun
}
