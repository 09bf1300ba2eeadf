// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Request is what mig says of a checkpoint or a restore: the part of a status
// below /run/mig that the benchmark needs.
type Request struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind"`
	Container string     `json:"container"`
	Phase     string     `json:"phase"`
	Created   time.Time  `json:"created"`
	Ended     *time.Time `json:"ended"`
	Progress  struct {
		// Round is the number of early rounds made.
		Round int    `json:"round"`
		Bytes uint64 `json:"bytes"`
		// Downtime is how long the engine held the container's processes.
		Downtime   time.Duration `json:"downtime"`
		Phases     []Phase       `json:"phases"`
		Subsystems []Subsystem   `json:"subsystems"`
	} `json:"progress"`
}

// Phase is a state that a request's event has entered.
type Phase struct {
	State string    `json:"state"`
	At    time.Time `json:"at"`
}

// Subsystem is how long the steps of one kind of kernel state took, those of
// all workers together.
type Subsystem struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Share is a part of the time that a request took.
type Share struct {
	What string
	Took time.Duration
}

// Shares splits the request's time: the engine process's start, each phase of
// the event, and the end of the process.
func (r Request) Shares() ([]Share, error) {
	phases := r.Progress.Phases
	if r.Ended == nil || len(phases) == 0 {
		return nil, fmt.Errorf("request %s (%s) does not say when it was where", r.ID, r.Kind)
	}
	shares := []Share{{"start the engine", phases[0].At.Sub(r.Created)}}
	for i, p := range phases[:len(phases)-1] {
		took := phases[i+1].At.Sub(p.At)
		// Some states are entered more than once, "holding" for example.
		at := slices.IndexFunc(shares, func(s Share) bool { return s.What == p.State })
		if at < 0 {
			shares = append(shares, Share{p.State, took})
		} else {
			shares[at].Took += took
		}
	}
	return append(shares, Share{"end the engine", r.Ended.Sub(phases[len(phases)-1].At)}), nil
}

// committing are the states that an event enters when its outcome is certain:
// a restored program runs, a saved one is safe on disk.
var committing = []string{"running", "decided", "resuming"}

// Committed is how long it took from the request's acceptance, before there was
// an engine process, to the moment that counts.
func (r Request) Committed() (time.Duration, error) {
	for _, p := range r.Progress.Phases {
		if slices.Contains(committing, p.State) {
			return p.At.Sub(r.Created), nil
		}
	}
	return 0, fmt.Errorf("request %s (%s) was never committed: %+v", r.ID, r.Kind, r.Progress.Phases)
}

// requests is where mig keeps the statuses of this driver's namespace.
func (m *Mig) requests() string { return filepath.Join("/run/mig", m.Namespace, "requests") }

// LastRequest reads the youngest request of a container.
func (m *Mig) LastRequest(container, kind string) (Request, error) {
	files, err := filepath.Glob(filepath.Join(m.requests(), "*.json"))
	if err != nil {
		return Request{}, err
	}
	slices.Sort(files) // the ids begin with the time
	var failed []error
	for _, file := range slices.Backward(files) {
		raw, err := os.ReadFile(file)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		var r Request
		if err := json.Unmarshal(raw, &r); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", file, err))
			continue
		}
		if r.Container == container && r.Kind == kind {
			return r, nil
		}
	}
	return Request{}, errors.Join(append(failed, fmt.Errorf("no %s of %s in %s", kind, container, m.Namespace))...)
}
