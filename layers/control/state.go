// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"slices"
)

// Side says which end of the data flow an event is.
type Side uint8

// The two sides.
const (
	SideExport Side = iota + 1
	SideImport
)

func (s Side) String() string {
	switch s {
	case SideExport:
		return "export"
	case SideImport:
		return "import"
	}
	return fmt.Sprintf("side %d", uint8(s))
}

// State is where an event stands. The legal order of states is in one table
// below; a transition outside of it is a defect of this package.
type State uint8

// The states of both sides.
const (
	// StateNew: nothing was asked of anyone.
	StateNew State = iota
	// StateSetup: constructors take hold of processes.
	StateSetup
	// StateUndoing: the event failed before its decision and is being undone.
	StateUndoing
	// StateDone: the event did what it was asked to do.
	StateDone
	// StateFailed: the event failed and left something that its undoing, or
	// its last steps, could not put right. The error says what.
	StateFailed
	// StateHeld: tasks are deliberately left frozen (export: decided or in
	// doubt) or waiting for state that was left behind (import): letting them
	// go on could mean two copies or an invented page.
	StateHeld
)

// The states of an export.
const (
	// StatePreflight: the tasks run, what cannot be carried is collected.
	StatePreflight State = iota + 16
	// StateEarly: pre-copy rounds while the tasks run.
	StateEarly
	// StateHolding: the container is stopped as a whole and listed.
	StateHolding
	// StateResidual: the tasks are stopped and exported.
	StateResidual
	// StateResuming: the tasks of a container that runs on are let go.
	StateResuming
	// StateSealing: the state that outlives this process is written.
	StateSealing
	// StateFlushing: waiting for the records to be safe.
	StateFlushing
	// StateSwitching: the two sides decide who runs on.
	StateSwitching
	// StateDecided: the source never runs again.
	StateDecided
	// StateLeft: what was left behind is exported to the running copy.
	StateLeft
	// StateCleaning: the source's tasks are ended.
	StateCleaning
	// StateRolledBack: failed, and the source runs as if nothing had happened.
	StateRolledBack
)

// The states of an import.
const (
	// StateNegotiating: what the stream holds is compared with what we have.
	StateNegotiating State = iota + 32
	// StateReceiving: records arrive.
	StateReceiving
	// StateBuilding: record.StageBuild.
	StateBuilding
	// StateJoining: record.StageJoin.
	StateJoining
	// StateSettling: record.StageSettle.
	StateSettling
	// StateArming: record.StageResume; the tasks hold their registers.
	StateArming
	// StateReady: only the permission to run is missing.
	StateReady
	// StateCommitted: the copy is the container from here on.
	StateCommitted
	// StateRunning: every task was let go.
	StateRunning
	// StateFilling: the tasks run, what was left behind still arrives.
	StateFilling
	// StateCleaned: failed, and nothing of the copy is left.
	StateCleaned
)

var stateNames = map[State]string{
	StateNew: "new", StateSetup: "setup", StateUndoing: "undoing", StateDone: "done", StateFailed: "failed", StateHeld: "held",
	StatePreflight: "preflight", StateEarly: "early", StateHolding: "holding", StateResidual: "residual",
	StateResuming: "resuming", StateSealing: "sealing", StateFlushing: "flushing", StateSwitching: "switching",
	StateDecided: "decided", StateLeft: "left", StateCleaning: "cleaning", StateRolledBack: "rolled back",
	StateNegotiating: "negotiating", StateReceiving: "receiving", StateBuilding: "building", StateJoining: "joining",
	StateSettling: "settling", StateArming: "arming", StateReady: "ready", StateCommitted: "committed",
	StateRunning: "running", StateFilling: "filling", StateCleaned: "cleaned",
}

func (s State) String() string {
	if n, ok := stateNames[s]; ok {
		return n
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Final reports whether nothing follows.
func (s State) Final() bool {
	switch s {
	case StateDone, StateFailed, StateHeld, StateRolledBack, StateCleaned:
		return true
	}
	return false
}

// transitions is the whole order of states. The steps that end in StateUndoing
// are exactly those before the decision: afterwards there is no way back.
var transitions = map[Side]map[State][]State{
	SideExport: {
		StateNew:       {StatePreflight, StateUndoing},
		StatePreflight: {StateEarly, StateHolding, StateUndoing},
		StateEarly:     {StateHolding, StateUndoing},
		StateHolding:   {StateSetup, StateResidual, StateUndoing},
		StateSetup:     {StateHolding, StateUndoing},
		// A container that runs on goes on before the flush: the records are
		// complete, and its silence need not last as long as a disk's.
		StateResidual:  {StateResuming, StateSealing, StateUndoing},
		StateResuming:  {StateFlushing},
		StateSealing:   {StateFlushing, StateUndoing},
		StateFlushing:  {StateSwitching, StateDone, StateFailed, StateUndoing},
		StateSwitching: {StateDecided, StateHeld, StateUndoing},
		StateDecided:   {StateLeft, StateCleaning},
		StateLeft:      {StateCleaning, StateHeld},
		StateCleaning:  {StateDone, StateHeld, StateFailed},
		StateUndoing:   {StateRolledBack, StateFailed},
	},
	SideImport: {
		StateNew:         {StateNegotiating, StateUndoing},
		StateNegotiating: {StateSetup, StateUndoing},
		StateSetup:       {StateReceiving, StateUndoing},
		StateReceiving:   {StateBuilding, StateUndoing},
		StateBuilding:    {StateJoining, StateUndoing},
		StateJoining:     {StateSettling, StateUndoing},
		StateSettling:    {StateArming, StateUndoing},
		StateArming:      {StateReady, StateUndoing},
		StateReady:       {StateCommitted, StateUndoing},
		// Committed and still undone: a task that cannot be let go is a refused
		// destination, and the error says whether any of them ran.
		StateCommitted: {StateRunning, StateUndoing},
		StateRunning:   {StateFilling, StateDone},
		StateFilling:   {StateDone, StateHeld},
		StateUndoing:   {StateCleaned, StateFailed},
	},
}

// legal reports whether an event of that side may go from one state to another.
func legal(side Side, from, to State) bool {
	return slices.Contains(transitions[side][from], to)
}
