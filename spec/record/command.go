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
