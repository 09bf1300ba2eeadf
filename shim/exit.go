// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"log/slog"
	"syscall"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	"github.com/io-mig/mig/runtime"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// watchExit waits for the end of a process and publishes it, in order.
func (s *service) watchExit(t *task, p *process) {
	<-p.rt.Done()
	status, at := p.rt.Exit()
	t.awaitStart(p)
	if t.isInit(p) {
		t.endOthers()
		err := recordExit(t.bundle, exitRecord{Timestamp: at, Pid: p.rt.Pid(), Status: status})
		if err != nil {
			slog.Error("exit status is not recorded", "container", t.id, "error", err)
		}
	}
	s.publishExit(t, p, uint32(status), at)
}

// awaitStart waits until no start of p is under way.
func (t *task) awaitStart(p *process) {
	for {
		t.mu.Lock()
		starting := p.starting
		if starting == nil && t.isInit(p) {
			t.initGone = true
		}
		t.mu.Unlock()
		if starting == nil {
			return
		}
		<-starting
	}
}

// endOthers returns when no exec session of the task is left: the init's exit
// is the last one. Sessions die with the pid namespace; where it is shared they
// are killed.
func (t *task) endOthers() {
	if t.sharedPids {
		if err := t.container.Signal(syscall.SIGKILL, true); err != nil && !errors.Is(err, runtime.ErrNotRunning) {
			slog.Error("kill the init's companions", "container", t.id, "error", err)
		}
	}
	t.mu.Lock()
	frozen := t.state == statePaused || t.state == duringPausedCheckpoint || t.state == duringDoubt
	t.mu.Unlock()
	if frozen {
		// Sessions that are frozen cannot die.
		if err := t.container.Resume(); err != nil && !errors.Is(err, runtime.ErrNotPaused) && !errors.Is(err, runtime.ErrNotRunning) {
			slog.Error("thaw an exited container", "container", t.id, "error", err)
		}
	}
	for {
		wait := t.anyLiveExec()
		if wait == nil {
			return
		}
		<-wait
	}
}

// anyLiveExec is a channel that closes when a session that lives now has ended
// or failed to start, nil if there is none. No new one can come: initGone.
func (t *task) anyLiveExec() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, starting := range t.execStarts {
		return starting
	}
	for _, p := range t.execs {
		if p.phase == phaseRunning {
			return p.done
		}
	}
	return nil
}

// publishExit makes the exit known. The event is queued before anyone who waits
// can react to it.
func (s *service) publishExit(t *task, p *process, status uint32, at time.Time) {
	t.mu.Lock()
	p.phase = phaseStopped
	p.status, p.exitedAt = status, at
	if t.isInit(p) && t.state != duringDelete && t.state != stateDeleted {
		t.state = stateStopped
	}
	streams := p.streams
	s.events.Put(&eventapi.TaskExit{
		ContainerID: t.id,
		ID:          t.apiID(p),
		Pid:         uint32(p.rt.Pid()),
		ExitStatus:  status,
		ExitedAt:    timestamppb.New(at),
	})
	close(p.done)
	t.mu.Unlock()
	streams.Exited()
}
