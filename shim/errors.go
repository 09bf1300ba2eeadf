// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/io-mig/mig/runtime"
)

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
