// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/io-mig/mig/runtime"
)

// answer is an error as it crosses to containerd: a text and a class.
type answer struct {
	text  string
	class error // of errdefs
}

func (a *answer) Error() string { return a.text }
func (a *answer) Unwrap() error { return a.class }

// toAPI gives an error the code that clients know, and its text; nothing of what
// it wraps. errgrpc would send that along as details and walks all of it: where one
// of several wrapped errors has a method Unwrap that returns nil (a job.Failure
// of no special kind, what fmt.Errorf makes of a %w that is nil) it panics, which
// would be the end of the shim and of its containers. For clients details are
// only repetitions of the text, on further lines.
func toAPI(err error) error {
	return errgrpc.ToGRPC(&answer{err.Error(), errdefs.Resolve(err)})
}

// asAPI gives the runtime's errors the classes that the task API knows.
func asAPI(err error) error {
	classes := []struct{ from, to error }{
		{runtime.ErrExists, errdefs.ErrAlreadyExists},
		{runtime.ErrNotExist, errdefs.ErrNotFound},
		{runtime.ErrNotRunning, errdefs.ErrFailedPrecondition},
		{runtime.ErrNotCreated, errdefs.ErrFailedPrecondition},
		{runtime.ErrPaused, errdefs.ErrFailedPrecondition},
		{runtime.ErrNotPaused, errdefs.ErrFailedPrecondition},
	}
	for _, c := range classes {
		if errors.Is(err, c.from) {
			return fmt.Errorf("%w: %w", err, c.to)
		}
	}
	return err
}
