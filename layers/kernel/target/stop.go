// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// Stop is how a task is to be stopped by job control when it is let go.
type Stop struct {
	// Parent is the task whose child it is, nil if that is outside.
	Parent *Task
	// Unreported: the parent has not waited for the stop yet, so that wait(2)
	// with WUNTRACED still tells it.
	Unreported bool
}

// StopAtRestart makes Restart leave the task stopped (state T).
func (t *Task) StopAtRestart(s Stop) { t.stop = &s }

// halt stops the task now, and takes from its parent what that knew before the
// checkpoint: the signal, and what wait(2) would report.
func (t *Task) halt() error {
	if t.stop == nil {
		return nil
	}
	parent := t.stop.Parent
	if parent == nil {
		return t.Traced.GroupStop()
	}
	st, err := parent.Proc.Status()
	if err != nil {
		return err
	}
	if err := t.Traced.GroupStop(); err != nil {
		return err
	}
	if !t.stop.Unreported {
		p := parent.Plan()
		p.Call(tracer.Syscall(unix.SYS_WAITID, unix.P_PID, uint64(t.Traced.NSPid), 0, unix.WSTOPPED|unix.WNOHANG|unix.WALL, 0))
		if err := p.Run(); err != nil {
			return fmt.Errorf("wait for the stop of process %d: %w", t.ID, err)
		}
	}
	if st.Sig.SharedPending&(1<<(unix.SIGCHLD-1)) != 0 {
		return nil // one was pending before; they do not queue
	}
	return parent.Disregard(unix.SIGCHLD)
}
