// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"os"
	"time"

	"github.com/io-mig/mig/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// container is what the service needs of package runtime; the meaning of the
// methods is documented there. Tests put a fake in its place.
type container interface {
	Init() child
	Start(ctx context.Context) error
	Exec(ctx context.Context, execID string, p *specs.Process, s runtime.Stdio) (child, error)
	Signal(sig os.Signal, all bool) error
	Pause() error
	Resume() error
	Update(r *specs.LinuxResources) error
	Pids() ([]int, error)
	OOM(ctx context.Context) (<-chan struct{}, error)
	Destroy(ctx context.Context) error
	// Runtime is the container for the migrator.
	Runtime() *runtime.Container
}

// child is the init or an exec session.
type child interface {
	Pid() int
	Done() <-chan struct{}
	Exit() (status int, at time.Time)
	Signal(sig os.Signal) error
	Console() *os.File
	Resize(width, height uint16) error
	Close() error
}

// creator makes containers.
type creator func(ctx context.Context, o runtime.CreateOptions) (container, error)

// native is the real container.
type native struct{ *runtime.Container }

func createNative(ctx context.Context, o runtime.CreateOptions) (container, error) {
	c, err := runtime.Create(ctx, o)
	if err != nil {
		return nil, err
	}
	return native{c}, nil
}

// Init implements container.
func (n native) Init() child { return n.Container.Init() }

// Exec implements container.
func (n native) Exec(ctx context.Context, execID string, p *specs.Process, s runtime.Stdio) (child, error) {
	c, err := n.Container.Exec(ctx, execID, p, s)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Runtime implements container.
func (n native) Runtime() *runtime.Container { return n.Container }
