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
	Started   *time.Time `json:"started"`
	Ended     *time.Time `json:"ended"`
	Progress  struct {
		Bytes uint64 `json:"bytes"`
		// Downtime is how long the engine held the container's processes.
		Downtime time.Duration `json:"downtime"`
	} `json:"progress"`
}

// Took is from the request's acceptance to its end, engine process included.
func (r Request) Took() (time.Duration, error) {
	if r.Ended == nil {
		return 0, fmt.Errorf("request %s (%s) has no end: it is %s", r.ID, r.Kind, r.Phase)
	}
	return r.Ended.Sub(r.Created), nil
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
