// SPDX-License-Identifier: Apache-2.0

package target

import (
	"slices"
	"sync"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// maxSpare bounds the tracers that are started before the container is stopped:
// each is a thread.
const maxSpare = 512

// spareTracers are started before there is a process for them, and trace nothing
// until one takes them.
type spareTracers struct {
	mu    sync.Mutex
	list  []*tracer.Tracer
	ended bool // none is wanted any more
}

// startTracers starts as many tracers as the container has processes. To start a
// thread takes longer than to stop a process, and the container runs meanwhile.
func (s *Source) startTracers() {
	pids, err := s.Freezer.Pids()
	if err != nil {
		return // who lists them next says so
	}
	pids = pids[:min(len(pids), maxSpare)]
	filtered := slices.ContainsFunc(pids, func(pid int) bool {
		st, err := s.proc.Process(pid).Status()
		return err == nil && st.Seccomp != procfs.SeccompDisabled
	})
	for range pids {
		t := tracer.New()
		if !s.spare.add(t) {
			return
		}
		if filtered {
			go t.EndSlowly() // all at once: most of it is waiting for the same
		}
	}
}

// add keeps a tracer, or ends it and reports false.
func (l *spareTracers) add(t *tracer.Tracer) bool {
	l.mu.Lock()
	ended := l.ended
	if !ended {
		l.list = append(l.list, t)
	}
	l.mu.Unlock()
	if ended {
		_ = t.Close()
	}
	return !ended
}

// take returns a tracer that was started before, or starts one. It is the
// caller's.
func (l *spareTracers) take() *tracer.Tracer {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.list)
	if n == 0 {
		return tracer.New()
	}
	t := l.list[n-1]
	l.list = l.list[:n-1]
	return t
}

// end ends those that nobody took.
func (l *spareTracers) end() {
	l.mu.Lock()
	list := l.list
	l.list, l.ended = nil, true
	l.mu.Unlock()
	for _, t := range list {
		_ = t.Close()
	}
}
