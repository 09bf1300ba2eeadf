// SPDX-License-Identifier: Apache-2.0

package record

// Command travels beside the records: to the medium itself (buffer size,
// compression), or to the peer of a subsystem on the other host.
type Command struct {
	// To is empty for the medium, otherwise the subsystem or "control".
	To   string
	Verb string
	Body []byte
}

// Pull asks the exporter for a piece of state out of turn: a page that a copy
// has touched before it came.
type Pull struct {
	Subsystem string
	Process   ProcessID
	// Entity and Length say what is wanted, as the subsystem counts: for memory
	// the address and a number of bytes.
	Entity uint64
	Length uint32
}
