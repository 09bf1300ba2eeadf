// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"

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
	if err == nil {
		p.console, err = console.receive()
	}
	if err != nil {
		return nil, errors.Join(err, kill(lp))
	}
	return p, nil
}

// kill ends a process that was started and cannot be used.
func kill(lp *libcontainer.Process) error {
	if err := lp.Signal(sigkill); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	_, _ = lp.Wait() // reports the kill as an error
	return nil
}
