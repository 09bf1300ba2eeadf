// SPDX-License-Identifier: Apache-2.0

// Package shim serves containerd's task API for the containers of one group (a
// pod, or a single container) on package runtime, and hands checkpoints and
// restores to a Migrator.
//
// # Locks
//
// Each task has one mutex, which guards its fields and those of its processes,
// and which is never held while anything is waited for. What takes time runs
// as a transition of the task's state machine (state.go): the state says that
// it is going on, other operations that would disturb it wait for its end, and
// State, Wait, Kill, Pids, Stats and Connect answer at once whatever goes on.
// The order is service.mu, then task.mu.
//
// # Order of events
//
// One queue carries all events. create precedes everything of a task; an exit
// is held back while the start of its process is under way (process.starting),
// so that it cannot overtake the start event; the init's exit waits for the
// exits of all exec sessions; delete comes after the exit.
package shim
