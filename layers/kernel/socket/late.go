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
// none is sent. So the copy's network drops what comes for such a connection, for as
// long as a kernel would send it again, or until somebody opens it anew
// (netdrop.Late). The other end, which hears no acknowledgment, gives up by itself, as
// it does behind a network that has lost it.
//
// Not dropped is what comes for a connection of which something was never sent, or is
// lost: the other end has to learn that it has not got everything.
//
//	destination  asks (verbLate), before anything is stopped
//	source       stopped: lists them (KindLate), and what it drops itself
//	destination  drops, before anything comes in; its supervisor sees to the end

// verbLate is a destination's command to its source: it knows KindLate.
const verbLate = "late"

// lateStates are those of connections that have ended for their program, but for
// TIME_WAIT, of which there may be tens of thousands.
const lateStates = 1<<stateFinWait1 | 1<<stateFinWait2 | 1<<stateClosing | 1<<stateLastAck

// mostLate bounds how many are carried: the latest.
const mostLate = 2048

// late is what one event does about them.
type late struct {
	// Of an export. asked: the destination knows the record.
	asked atomic.Bool
	// What there was when new connections began to be held off, so that the switch
	// need not look through all that are in TIME_WAIT: ended, and those that had not.
	ended []netdrop.Ended
	begun []ends

	// Of an import. drop is nil where nothing can be dropped, or nothing more.
	drop *netdrop.Late
	list []netdrop.Ended
}
