// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// orphanCheck is how often a server that has never been asked for a task looks
// whether somebody may still come.
const orphanCheck = 500 * time.Millisecond

// endIfOrphan ends a server that was started for nothing: containerd has killed
// the action `start` after that had started the server, because its own client
// was gone, and has removed the bundle. It does not know that there is a server.
// The first create ends the watch: from there on containerd asks for the end.
func (s *service) endIfOrphan(ended <-chan struct{}) {
	tick := time.NewTicker(orphanCheck)
	defer tick.Stop()
	for {
		select {
		case <-s.asked:
			return
		case <-ended:
			return
		case <-tick.C:
		}
		if bundleIsGone() && s.endUnasked() {
			return
		}
	}
}

// bundleIsGone tells whether the working directory, which is the bundle that the
// server was started in, was removed: getcwd(2).
func bundleIsGone() bool {
	_, err := unix.Getwd()
	return errors.Is(err, unix.ENOENT)
}

// endUnasked ends the server unless it was asked for a task meanwhile.
func (s *service) endUnasked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.asked:
		return false
	default:
	}
	s.end()
	return true
}
