// SPDX-License-Identifier: Apache-2.0

package request

import (
	"time"

	"github.com/io-mig/mig/layers/request/job"
)

// Phase is where a request stands.
type Phase string

// The phases.
const (
	Pending   Phase = "pending"
	Active    Phase = "running"
	Canceling Phase = "canceling"
	Succeeded Phase = "succeeded"
	Failed    Phase = "failed"
	Canceled  Phase = "canceled"
	// Lost: the process that kept the request has died. Only readers say so.
	Lost Phase = "lost"
)

// Final reports whether nothing follows.
func (p Phase) Final() bool {
	return p == Succeeded || p == Failed || p == Canceled || p == Lost
}

// Status is a request as others may see it: one JSON file of the state
// directory.
type Status struct {
	ID    string   `json:"id"`
	Token string   `json:"token"`
	Kind  job.Kind `json:"kind"`
	// Namespace and Container as containerd names them.
	Namespace string `json:"namespace"`
	Container string `json:"container"`
	Image     string `json:"image"`
	Strategy  string `json:"strategy,omitempty"`
	Leave     bool   `json:"leave,omitempty"`

	Phase    Phase        `json:"phase"`
	Progress job.Progress `json:"progress"`
	// Failure is the whole error of a request that failed or was cancelled.
	Failure *job.Failure `json:"failure,omitempty"`
	// Doubt: the container stays frozen, since the answer to COMMIT is overdue, or
	// although the engine has ended. nil otherwise.
	Doubt *Doubt `json:"doubt,omitempty"`

	Created time.Time  `json:"created"`
	Started *time.Time `json:"started,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`
	Updated time.Time  `json:"updated"`

	// Owner keeps the status, Engine does the job (0: not started).
	Owner  Process `json:"owner"`
	Engine int     `json:"engine,omitempty"`
}

// Over reports whether nothing follows that a person may wait for.
func (s *Status) Over() bool { return s.Phase.Final() && s.Doubt == nil }

// Doubt is why the source of a move stays frozen.
type Doubt = job.Doubt

// Process names a process so that a later one with its pid is not taken for it.
type Process struct {
	Pid int `json:"pid"`
	// Start is its start time in clock ticks since boot, field 22 of
	// /proc/pid/stat; 0 means unknown.
	Start uint64 `json:"start,omitempty"`
}
