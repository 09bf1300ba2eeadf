// SPDX-License-Identifier: Apache-2.0

// Package migrate carries out the shim's checkpoints and restores: it turns
// them into requests of layers/request, which runs an engine process for each,
// and supervises what the engine cannot undo itself if it dies.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim"
	"github.com/io-mig/mig/shim/describe"
)

// StateDir is where requests keep their statuses, below it one directory for
// each namespace: mig status reads them.
const StateDir = "/run/mig"

// Migrator implements shim.Migrator. Its zero value is ready for use.
type Migrator struct {
	// JournalDir is where moves keep their journals; empty means journal.Dir.
	JournalDir string
	// Engine is the command line of engines; empty: Open has opened their program.
	Engine []string

	mu       sync.Mutex
	managers map[string]*request.Manager // by namespace
	program  *request.Program
	// applications that may be asked to come to rest, by namespace and container.
	applications map[[2]string]*application
}

var _ shim.Migrator = (*Migrator)(nil)

// Open opens the program of engines, so that those of this process are of its
// own build as long as it lives. If that fails, so does what needs an engine,
// unless it can be opened by then.
func (m *Migrator) Open() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open()
}

// open needs mu.
func (m *Migrator) open() (err error) {
	if m.program == nil && len(m.Engine) == 0 {
		m.program, err = request.OpenProgram()
	}
	return err
}

// manager returns the namespace's.
func (m *Migrator) manager(namespace string) (*request.Manager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.managers[namespace]; r != nil {
		return r, nil
	}
	if err := m.open(); err != nil {
		return nil, err
	}
	r, err := request.NewManager(request.Options{
		Dir: StateDir, Namespace: namespace,
		Engine: m.engine(),
		Warn:   func(err error) { slog.Warn("requests", "error", err) },
	})
	if err != nil {
		return nil, err
	}
	if m.managers == nil {
		m.managers = map[string]*request.Manager{}
	}
	m.managers[namespace] = r
	return r, nil
}

// engine starts engines. The program is open.
func (m *Migrator) engine() *request.ProcessEngine {
	return &request.ProcessEngine{Program: m.program, Argv: m.Engine, Log: logFile, Spawn: runtime.Spawn, Quiescer: m.quiescer}
}

// logFile puts the engine's log into the work directory, where there is one.
func logFile(j *job.Job) string {
	if j.Work == "" {
		return ""
	}
	return filepath.Join(j.Work, string(j.Kind)+"-"+j.Request+".log")
}

// Checkpoint writes the image of one task, or moves it. On an error the task is
// as before.
func (m *Migrator) Checkpoint(ctx context.Context, r shim.CheckpointRequest) error {
	if address.IsMove(r.Image) {
		return m.move(ctx, r)
	}
	manager, err := m.manager(r.Namespace)
	if err != nil {
		return err
	}
	if r.Work != "" {
		if err := os.MkdirAll(r.Work, 0o700); err != nil {
			return fmt.Errorf("work directory: %w", err)
		}
	}
	j, err := checkpointJob(r)
	if err != nil {
		return err
	}
	done, err := m.withApplication(ctx, &j, r)
	if err != nil {
		return err
	}
	defer done()
	h, err := manager.Submit(ctx, j)
	if err != nil {
		return err
	}
	// The outcome decides whether the container lives: it is awaited even if
	// the client goes away, which cancels the request.
	err = h.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return errors.Join(err, settle(r), clearImage(r.Image))
	}
	return nil
}

// optionTCP says what becomes of established connections: see the package
// socket.
const optionTCP = "tcp"

// checkpointJob describes a checkpoint to the engine.
func checkpointJob(r shim.CheckpointRequest) (job.Job, error) {
	j, err := describe.Checkpoint(r.Container, r.Bundle, r.Spec)
	j.Image, j.Work, j.Leave, j.WasPaused = r.Image, r.Work, !r.Exit, r.Paused
	j.Strategy = j.Options[describe.OptionStrategy] // a move's is in its address
	if r.Options.GetOpenTcp() {
		j.Options[optionTCP] = "keep"
	}
	return j, err
}

// thawGrace bounds the repair after an engine's death.
const thawGrace = 5 * time.Second

// settle puts the freezer back to what it was before a failed checkpoint. The
// engine does so itself, unless it was killed: then its tasks run on, and only
// the cgroup may have been left frozen, or thawed under a paused container.
func settle(r shim.CheckpointRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), thawGrace)
	defer cancel()
	unstick(r.Container)
	s, err := r.Container.Status()
	for err == nil && ctx.Err() == nil {
		switch {
		case s.State == runtime.StateStopped:
			return nil
		case r.Paused == (s.State == runtime.StatePaused):
			return nil
		case r.Paused:
			err = r.Container.Pause()
		default:
			err = r.Container.Resume()
		}
		if err == nil {
			s, err = r.Container.Status()
		}
	}
	if err != nil && !errors.Is(err, runtime.ErrNotRunning) {
		return fmt.Errorf("container %s could not be put back as it was: %w", r.ID, err)
	}
	return nil
}

// unstick gives back to the program the TCP connections that an engine was
// reading, or had silenced, when it died. The container is still frozen then.
func unstick(c *runtime.Container) {
	pids, err := c.Pids()
	n := 0
	if err == nil {
		n, err = tcprepair.Undo(pids)
	}
	if n > 0 || err != nil {
		slog.Warn("TCP connections were in repair mode when the engine ended", "container", c.ID(), "connections", n, "error", err)
	}
}

// clearImage removes what a killed engine may have left of a half-published
// image. Other media see to it themselves.
func clearImage(image string) error {
	if !filepath.IsAbs(image) {
		return nil
	}
	return directory.Clear(image)
}
