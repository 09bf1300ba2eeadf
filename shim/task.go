// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/io-mig/mig/shim/agenthost"
	"github.com/io-mig/mig/shim/metrics"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// drainTimeout bounds how long a delete waits for output that is still held
// open by someone (as runc's shim).
const drainTimeout = 10 * time.Second

// task is one container of the API. The fields above the line do not change
// after Create.
type task struct {
	id, namespace, bundle string
	spec                  *specs.Spec
	container             container
	init                  *process
	cgroup                metrics.Source
	// rootfs is the directory that Create has mounted, empty if none.
	rootfs string
	// sharedPids: the init's death does not end the other processes.
	sharedPids bool
	stopOOM    func()
	// agent is the application's, nil if it has none.
	agent *agenthost.Server

	mu sync.Mutex
	// ---
	state state
	// pausedAt is when the last pause was done.
	pausedAt time.Time
	// settled is open while the state is a transition, nil otherwise.
	settled chan struct{}
	// execStarts are the exec sessions that are just being started.
	execStarts map[*process]chan struct{}
	// initGone: the init is dead, even if its exit is not published yet.
	initGone bool
	execs    map[string]*process
	// restore is the one that Start has to run, nil if there is none.
	restore Restore
	// scratch is the daemon's temporary copy of the image, removed with the
	// restore; empty if there is none.
	scratch string
}

// process finds the init (execID is empty) or an exec session.
func (t *task) process(execID string) (*process, error) {
	if execID == "" {
		return t.init, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.execs[execID]
	if !ok {
		return nil, fmt.Errorf("process does not exist %s: %w", execID, errdefs.ErrNotFound)
	}
	return p, nil
}

// isInit tells p from the exec sessions.
func (t *task) isInit(p *process) bool { return p == t.init }

// apiID is how events and State name the process.
func (t *task) apiID(p *process) string {
	if p.execID == "" {
		return t.id
	}
	return p.execID
}

func errInitGone(id string) error {
	return fmt.Errorf("container %s init process is not running: %w", id, errdefs.ErrFailedPrecondition)
}
