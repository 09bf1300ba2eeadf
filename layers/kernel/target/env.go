// SPDX-License-Identifier: Apache-2.0

package target

// Env is what a subsystem of one event works on. Exactly one of Source and
// Frame is set.
type Env struct {
	Source *Source
	Frame  *Frame
	// Workers is how many goroutines a subsystem may use for bulk work.
	Workers int
}
