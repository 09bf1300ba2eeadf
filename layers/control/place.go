// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"

	"github.com/io-mig/mig/spec/record"
)

// Place names one call that an event makes: of a subsystem, a constructor, the
// container, the medium or a hook.
type Place struct {
	// Call is the verb, for example "setup", "flush", "step".
	Call string
	// Subsystem is set for steps and faults.
	Subsystem string
	// Process that the call works on, or record.Shared.
	Process record.ProcessID
	// Stage and Round are set for steps.
	Stage record.Stage
	Round int
}

func (p Place) String() string {
	switch {
	case p.Subsystem != "" && p.Stage != 0:
		return fmt.Sprintf("%s/process %d: %s step %d", p.Subsystem, p.Process, p.Stage, p.Round)
	case p.Subsystem != "":
		return fmt.Sprintf("%s: %s", p.Subsystem, p.Call)
	case p.Process != record.Shared:
		return fmt.Sprintf("process %d: %s", p.Process, p.Call)
	}
	return p.Call
}

// touchesTasks reports whether an unfinished call of this place may still have
// its hands in a task, and in which: record.Shared means in any of them.
func (p Place) touchesTasks() (record.ProcessID, bool) {
	return p.Process, p.Subsystem != "" || p.Process != record.Shared
}
