// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"

	"github.com/opencontainers/runc/libcontainer"
)

// launch starts lp in the container and takes charge of it: from here on the
// process is watched and reaped. On error libcontainer has killed and reaped
// what it started.
func launch(lc *libcontainer.Container, lp *libcontainer.Process, s Stdio) (*Process, error) {
	console, err := setStdio(lp, s)
	if err != nil {
		return nil, err
	}
	defer console.closeSockets()

	// libcontainer forks several times, and the hooks are children of ours,
	// too: no orphan is reaped until it is known which pids are whose.
	children.enter()
	defer children.leave()
	if err := lc.Start(lp); err != nil {
		return nil, err
	}
	p, err := watch(lp)
	if err != nil {
		// Nobody waits for it yet.
		_ = lp.Signal(sigkill)
		_, _ = lp.Wait()
		return nil, err
	}
	if p.console, err = console.receive(); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

// end kills a process that nobody has been told of, and waits for it.
func (p *Process) end() error {
	err := p.Signal(sigkill)
	if errors.Is(err, ErrNotRunning) {
		err = nil
	}
	<-p.done
	return errors.Join(err, p.Close())
}
