// SPDX-License-Identifier: Apache-2.0

package target

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
}
