// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"

	"github.com/io-mig/mig/layers/request/job"
)

// application are the hooks by which the supervisor puts a job's application to
// rest, nil if the job does not ask for it.
func application(j *job.Job, r job.Reporter) (quiesce func(context.Context) error, wake func(context.Context, error) error) {
	q, ok := r.(job.Quiescer)
	if !j.Quiesce || !ok {
		return nil, nil
	}
	wake = func(_ context.Context, cause error) error {
		if cause == nil {
			return q.Wake("")
		}
		return q.Wake(cause.Error())
	}
	return q.Quiesce, wake
}
