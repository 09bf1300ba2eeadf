// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
)

type (
	ctx           = context.Context
	containerInfo = containers.Container
)

// withImage has a task made of an image directory, as it lies there.
func withImage(dir string) client.NewTaskOpts { return client.WithRestoreImagePath(dir) }
