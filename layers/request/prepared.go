// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/request/job"
)

// preparedFor is how long a prepared engine waits for its job before it is
// ended: less than the time after which it would end by itself.
const preparedFor = 20 * time.Second

// Prepared is one engine process that is started before there is a job for it,
// while something else takes time that the start can run beside. It is an
// Engine for that one job, and for others starts processes as usual. Its
// methods may be called from any goroutine.
type Prepared struct {
	engine Engine
	starts *ProcessEngine // that has started what waits; nil: nothing was prepared
	timer  *time.Timer

	mu      sync.Mutex
	waiting chan *process // has the process as soon as it is started; nil: taken
}

var _ Engine = (*Prepared)(nil)

// Prepare prepares an engine for the next request, to be given to SubmitTo. One
// whose jobs need no process is simply used. The caller closes what it returns.
func (m *Manager) Prepare() *Prepared {
	if p, ok := m.opts.Engine.(*ProcessEngine); ok {
		return p.Prepare()
	}
	return &Prepared{engine: m.opts.Engine}
}

// Prepare starts a process, which has no log file. It does not wait for the
// start. The caller closes what it returns.
func (p *ProcessEngine) Prepare() *Prepared {
	waiting := make(chan *process, 1)
	go func() {
		r, err := p.launch("")
		if err != nil {
			r = nil // Start tries again, and reports it
		}
		waiting <- r
	}()
	q := &Prepared{engine: p, starts: p, waiting: waiting}
	q.timer = time.AfterFunc(preparedFor, func() { q.Close() })
	return q
}

// take returns the process, nil if there is none any more.
func (q *Prepared) take() *process {
	q.mu.Lock()
	waiting := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	if waiting == nil {
		return nil
	}
	q.timer.Stop()
	return <-waiting
}

// Start gives the job to the prepared process, or to a new one if that is gone.
func (q *Prepared) Start(ctx context.Context, j *job.Job, files []*os.File) (Running, error) {
	if err := j.Valid(); err != nil {
		return nil, err
	}
	if r := q.take(); r != nil {
		if q.starts.begin(ctx, r, j, files) == nil {
			return r, nil
		}
	}
	return q.engine.Start(ctx, j, files)
}

// Close ends the process if it got no job.
func (q *Prepared) Close() {
	if r := q.take(); r != nil {
		_ = r.discard(context.Background()) // killed, as it says
	}
}
