// SPDX-License-Identifier: Apache-2.0

package enginepipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/io-mig/mig/layers/request/job"
)

// patience is how long a cancelled job may go on.
type patience struct {
	// end is for any job, from its cancellation on, or, if it cannot be undone any more,
	// since something has moved.
	end time.Duration
	// alone is for one whose supervisor is dead, and of whose container nothing lives
	// any more. Somebody else has killed it then, and can remove neither the dead nor
	// their cgroup before the engine, which traces them, has ended: that has to be while
	// the shim's action `delete` tries, to which containerd gives 5 s.
	alone time.Duration
}

var usual = patience{end: AbandonAfter, alone: time.Second}

// lastly waits for the end of a job that was cancelled, or gives up on it.
func lastly(ctx context.Context, conn *Conn, j *job.Job, ended <-chan error, rep *reporter, p patience) error {
	look := time.NewTicker(min(p.alone, p.end) / 10)
	defer look.Stop()
	began := time.Now()
	var moved uint64
	for lived := began; ; {
		select {
		case err := <-ended:
			return err
		case now := <-look.C:
			if f := rep.moved.Load(); f != nil {
				if n := (*f)(); n != moved { // it falls with a connection that ends
					moved, began = n, now
				}
			}
			if now.Sub(began) >= p.end {
				return fmt.Errorf("%w within %s: %w", ErrAbandoned, p.end, context.Cause(ctx))
			}
			if !conn.Over() || inhabited(j.Freezer) {
				lived = now
			}
			if now.Sub(lived) >= p.alone {
				return fmt.Errorf("%w, and nothing of its container lives any more: %w", ErrAbandoned, context.Cause(ctx))
			}
		}
	}
}

// inhabited: a process lives in the cgroup or below it, as far as one can see. The
// kernel names no dead ones there, reaped or not.
func inhabited(dir string) bool {
	if dir == "" {
		return true // nobody can tell
	}
	lives := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if len(b) > 0 {
			lives = true
			return fs.SkipAll
		}
		return err
	})
	// A cgroup that was removed had nobody.
	return lives || err != nil && !errors.Is(err, fs.ErrNotExist)
}
