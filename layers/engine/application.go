// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/agent"
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

// mountAgent adds what the shim mounts for a container whose annotations ask for
// an agent, beside what is in its configuration.
func mountAgent(spec *specs.Spec, bundle string) {
	if m, ok := agent.MountOf(spec.Annotations, bundle); ok {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: m.Options})
	}
}
