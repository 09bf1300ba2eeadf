// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim"
	"github.com/io-mig/mig/shim/agenthost"
	"github.com/io-mig/mig/spec/agent"
)

// How long an application may take to come to rest: less than the watchdog of an
// event has patience (control.DefaultWatchdog).
const (
	restTime    = 10 * time.Second
	maxRestTime = 50 * time.Second
)

// application is one container's application in one event.
type application struct {
	server  *agenthost.Server
	event   string
	kind    string
	timeout time.Duration
	// force: the event goes on without an application that does not come to rest.
	force bool
}

var _ job.Quiescer = (*application)(nil)

// withApplication puts the application to rest, or has the engine ask for that
// when the time has come. done ends the asking.
func (m *Migrator) withApplication(ctx context.Context, j *job.Job, r shim.CheckpointRequest) (done func(), err error) {
	if r.Agent == nil {
		return func() {}, nil
	}
	a, err := newApplication(j, r)
	switch {
	case err != nil:
		return nil, err
	case r.PausedNow:
		return func() {}, a.restPaused(ctx, r.Container)
	case r.Paused: // by a person: it cannot come to rest
		a.server.Force(a.event)
		return func() {}, nil
	}
	j.Quiesce = true
	key := [2]string{r.Namespace, r.ID}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applications == nil {
		m.applications = map[[2]string]*application{}
	}
	m.applications[key] = a
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.applications[key] == a {
			delete(m.applications, key)
		}
	}, nil
}

func newApplication(j *job.Job, r shim.CheckpointRequest) (_ *application, err error) {
	a := &application{
		server: r.Agent, event: "paused", kind: agent.KindCheckpoint, timeout: restTime,
		force: j.Options[policy.AgentForce] == "true",
	}
	if address.IsMove(r.Image) {
		a.kind = agent.KindMove
	}
	if text := j.Options[policy.AgentTimeout]; text != "" {
		if a.timeout, err = time.ParseDuration(text); err != nil || a.timeout <= 0 || a.timeout > maxRestTime {
			return nil, fmt.Errorf("policy %s: %q is no time of up to %s", policy.AgentTimeout, text, maxRestTime)
		}
	}
	return a, nil
}

// restPaused thaws a container that the client of its checkpoint has paused,
// until its application is at rest.
func (a *application) restPaused(ctx context.Context, c *runtime.Container) error {
	if err := c.Resume(); err != nil {
		return err
	}
	return errors.Join(a.Quiesce(ctx), c.Pause())
}

// quiescer is request.ProcessEngine's.
func (m *Migrator) quiescer(j *job.Job) job.Quiescer {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.applications[[2]string{j.Namespace, j.Container}]
	if a == nil {
		return nil
	}
	a.event = j.Request
	return a
}

// Quiesce is job.Quiescer's.
func (a *application) Quiesce(ctx context.Context) error {
	err := a.server.Quiesce(ctx, a.event, a.kind, a.timeout)
	if err == nil || !a.force || ctx.Err() != nil {
		return err
	}
	slog.Warn("the event goes on without its application", "request", a.event, "error", err)
	a.server.Force(a.event)
	return nil
}

// Wake is job.Quiescer's.
func (a *application) Wake(reason string) error { return a.server.Resume(reason) }
