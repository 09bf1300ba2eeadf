// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Runc is runc with CRIU, by its command line.
type Runc struct {
	Program string   // path of runc
	Root    string   // its state directory
	Work    string   // an existing directory for logs
	Env     []string // with a PATH in which criu is found first
}

var _ Driver = (*Runc)(nil)

// Name implements Driver.
func (r *Runc) Name() string { return "runc + CRIU" }

// Run implements Driver.
func (r *Runc) Run(ctx context.Context, c *Container) error {
	if _, err := r.run(ctx, "run", "--detach", "--bundle", c.Bundle, c.ID); err != nil {
		return err
	}
	return r.findPid(ctx, c)
}

// Checkpoint implements Driver.
func (r *Runc) Checkpoint(ctx context.Context, c *Container, image string, leave bool) (time.Duration, error) {
	args := []string{"checkpoint", "--image-path", image, "--work-path", r.Work}
	if leave {
		args = append(args, "--leave-running")
	}
	took, err := r.run(ctx, append(args, c.ID)...)
	return took, r.withLog(err, "dump.log")
}

// Restore implements Driver.
func (r *Runc) Restore(ctx context.Context, c *Container, image string) (Restored, error) {
	took, err := r.run(ctx, "restore", "--detach", "--image-path", image, "--work-path", r.Work, "--bundle", c.Bundle, c.ID)
	if err != nil {
		return Restored{}, r.withLog(err, "restore.log")
	}
	return Restored{Fill: took}, r.findPid(ctx, c)
}

// Remove implements Driver.
func (r *Runc) Remove(ctx context.Context, c *Container) error {
	_, err := r.run(ctx, "delete", "--force", c.ID)
	return err
}

// run runs runc. A container inherits runc's standard streams: they are none.
func (r *Runc) run(ctx context.Context, args ...string) (time.Duration, error) {
	log := filepath.Join(r.Work, "runc.log")
	cmd := exec.CommandContext(ctx, r.Program, append([]string{"--root", r.Root, "--log", log}, args...)...)
	cmd.Env = r.Env
	started := time.Now()
	err := cmd.Run()
	took := time.Since(started)
	if err != nil {
		raw, _ := os.ReadFile(log)
		err = fmt.Errorf("runc %s: %w: %s", strings.Join(args, " "), err, lastLine(string(raw)))
	}
	return took, errors.Join(err, removed(log))
}

// removed removes a file that need not be there.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// withLog adds what CRIU says was wrong.
func (r *Runc) withLog(err error, name string) error {
	if err == nil {
		return nil
	}
	raw, readErr := os.ReadFile(filepath.Join(r.Work, name))
	if readErr != nil {
		return err
	}
	var wrong []string
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, "Error") {
			wrong = append(wrong, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("%w\n%s", err, tail(strings.Join(wrong, "\n")))
}

// tail keeps what an error message has room for.
func tail(s string) string {
	const room = 1000
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-room):]
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return tail(s[strings.LastIndexByte(s, '\n')+1:])
}

func (r *Runc) findPid(ctx context.Context, c *Container) error {
	cmd := exec.CommandContext(ctx, r.Program, "--root", r.Root, "state", c.ID)
	cmd.Env = r.Env
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("runc state %s: %w", c.ID, err)
	}
	var state struct {
		Pid int `json:"pid"`
	}
	if err := json.Unmarshal(out, &state); err != nil {
		return fmt.Errorf("runc state %s: %w", c.ID, err)
	}
	if c.Pid = state.Pid; c.Pid == 0 {
		return errors.New("runc state " + c.ID + ": no process")
	}
	return nil
}
