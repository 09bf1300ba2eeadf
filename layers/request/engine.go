// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"os"

	"github.com/io-mig/mig/layers/request/job"
)

// Engine starts jobs.
type Engine interface {
	// Start begins a job and returns when it is under way. The files are those
	// of Job.Files; they stay the caller's and may be closed on return. The end
	// of ctx cancels the job.
	Start(ctx context.Context, j *job.Job, files []*os.File) (Running, error)
}

// Running is a job under way.
type Running interface {
	// Progress yields snapshots, the latest only, and is closed at the end.
	Progress() <-chan job.Progress
	// Cancel asks the job to end and to undo what it did. It does not wait.
	Cancel()
	// Wait returns the job's outcome: nil as soon as it is known, and a
	// *job.Failure or an *EngineDiedError when the engine has ended besides, at
	// the latest when it was killed for not ending. It may be called more than once.
	Wait() (job.Progress, error)
	// Pid of the engine process, 0 if it has none of its own.
	Pid() int
}
