// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Result is what a command did.
type Result struct {
	Args           []string
	Code           int // exit status; -1 if it did not start or timed out
	Stdout, Stderr string
	Took           time.Duration
	failure        error // why there is no exit status
}

// Err is nil if the command ended with status 0, and tells all about it
// otherwise.
func (r Result) Err() error {
	if r.Code == 0 && r.failure == nil {
		return nil
	}
	why := fmt.Sprintf("exit status %d", r.Code)
	if r.failure != nil {
		why = r.failure.Error()
	}
	return fmt.Errorf("%s: %s\n%s%s", strings.Join(r.Args, " "), why, r.Stdout, r.Stderr)
}

// ctrTimeout bounds a ctr call whose context has no deadline of its own.
const ctrTimeout = 60 * time.Second

// CtrCommand prepares ctr with this daemon's address and namespace, for a
// caller that wants its standard streams or its own life cycle.
func (d *Daemon) CtrCommand(ctx context.Context, args ...string) *exec.Cmd {
	d.noteIDs(args)
	full := append([]string{"--address", d.Address, "--namespace", d.Namespace}, d.withFIFODir(args)...)
	cmd := exec.CommandContext(ctx, d.programs.ctr, full...)
	cmd.Env = d.environ()
	cmd.Dir = d.Dir
	// Whoever holds ctr's output open after its death must not hold us.
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// withFIFODir lets ctr put its FIFOs below Dir where it can: it never removes
// those of what it starts detached, and they would stay in /run.
func (d *Daemon) withFIFODir(args []string) []string {
	verb := 0
	switch {
	case len(args) > 0 && args[0] == "run":
		verb = 1
	case len(args) > 1 && args[0] == "tasks" && (args[1] == "exec" || args[1] == "start"):
		verb = 2
	default:
		return args
	}
	return slices.Concat(args[:verb], []string{"--fifo-dir", filepath.Join(d.Dir, "fifo")}, args[verb:])
}

// Ctr runs ctr to its end, with no standard input.
func (d *Daemon) Ctr(ctx context.Context, args ...string) Result {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ctrTimeout)
		defer cancel()
	}
	cmd := d.CtrCommand(ctx, args...)
	return run(ctx, cmd, append([]string{"ctr"}, args...))
}

func run(ctx context.Context, cmd *exec.Cmd, name []string) Result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	started := time.Now()
	err := cmd.Run()
	result := Result{Args: name, Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(started)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		result.Code, result.failure = -1, fmt.Errorf("no end within %v: %w", result.Took.Round(time.Millisecond), ctx.Err())
	case errors.As(err, &exit):
		result.Code = exit.ExitCode()
	case err != nil:
		result.Code, result.failure = -1, err
	}
	return result
}

// Import loads an OCI image archive and unpacks it.
func (d *Daemon) Import(ctx context.Context, archive string) error {
	return d.Ctr(ctx, "images", "import", "--snapshotter", d.Snapshotter, archive).Err()
}
