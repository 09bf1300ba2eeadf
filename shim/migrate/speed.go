// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"log/slog"

	"github.com/io-mig/mig/layers/request/cpuquota"
	"github.com/io-mig/mig/layers/request/job"
)

// keepSpeed returns what puts back how much of the processors the container of a
// job may use, if its engine may change that (auto-converge). The engine does so
// itself, unless it dies.
func keepSpeed(j *job.Job, mayChange bool) (putBack func(), err error) {
	if !mayChange {
		return func() {}, nil
	}
	q, err := cpuquota.Of(j.Cgroups)
	if err != nil {
		return nil, err
	}
	before, err := q.Read()
	if err != nil {
		return nil, err
	}
	return func() {
		if err := q.Write(before); err != nil {
			slog.Error("the container may be slowed down for good", "container", j.Container, "quota", before, "error", err)
		}
	}, nil
}
