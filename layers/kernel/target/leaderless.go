// SPDX-License-Identifier: Apache-2.0

package target

import (
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// EndsLeader tells that the image's process has lost its leader and has only
// other threads. The frame's has one to make them with, until EndLeader.
func (t *Task) EndsLeader(code int) { t.ending = &code }

// Doomed is the leader that is to end, nil if the image has one.
func (t *Task) Doomed() *tracer.Thread {
	if t.ending == nil {
		return nil
	}
	return t.Traced.Leader()
}

// EndLeader ends the leader, if it is to end. It has to have the credentials that
// it is to keep, by which kill(2) judges who may send the process a signal; and
// its children must not have asked yet to be told of the end of their parent
// (PR_SET_PDEATHSIG).
func (t *Task) EndLeader() error {
	if t.ending == nil {
		return nil
	}
	code := *t.ending
	t.ending = nil
	if err := t.Traced.EndLeader(code); err != nil {
		return err
	}
	t.Pid = t.Traced.Leader().Tid
	t.Proc = procfs.Host().Process(t.Pid)
	return nil
}
