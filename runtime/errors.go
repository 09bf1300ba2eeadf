// SPDX-License-Identifier: Apache-2.0

package runtime

import "errors"

// Errors a caller can tell apart with errors.Is. They are always wrapped with
// the container's id and the operation.
var (
	// ErrExists says that the id has a state directory already.
	ErrExists = errors.New("container exists already")
	// ErrNotExist says that there is no state directory for the id.
	ErrNotExist = errors.New("container does not exist")
	// ErrNotRunning says that the process or container has exited.
	ErrNotRunning = errors.New("process is not running")
	// ErrNotCreated says that the container was started before.
	ErrNotCreated = errors.New("container is not in the created state")
	// ErrPaused says that the operation needs a container that is not frozen.
	ErrPaused = errors.New("container is paused")
	// ErrNotPaused says that Resume found nothing to resume.
	ErrNotPaused = errors.New("container is not paused")
	// ErrNoConsole says that the process has no terminal of ours.
	ErrNoConsole = errors.New("process has no terminal")
)
