// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"sync"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/onthread"
	"github.com/io-mig/mig/layers/request/job"
)

// progressEvery is how often progress is reported.
const progressEvery = 100 * time.Millisecond

// progress reports an event until it is stopped.
type progress struct {
	to     job.Reporter
	status func() control.Status
	quit   chan struct{}
	done   chan struct{}
	times  map[string]*onthread.Subsystem
	last   control.Status
	at     time.Time

	steps stepLog

	mu sync.Mutex
	// Below: guarded by mu.
	phases []job.Phase
	doubt  *job.Doubt // replaced, never changed
}

func newProgress(to job.Reporter, times map[string]*onthread.Subsystem) *progress {
	return &progress{to: to, times: times, quit: make(chan struct{}), done: make(chan struct{})}
}

// watch reports the event that status asks until stop is called.
func (p *progress) watch(status func() control.Status) (stop func(control.Result)) {
	p.status = status
	go func() {
		defer close(p.done)
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-t.C:
				p.report(control.Result{})
			}
		}
	}()
	return func(r control.Result) {
		close(p.quit)
		<-p.done
		p.report(r)
	}
}

// observe is told of transitions; they show in the next report.
func (p *progress) observe(t control.Transition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phases = append(p.phases, job.Phase{State: t.To.String(), At: t.At})
}

// doubts notes what the destination says that is asked what became of the copy, or
// with nothing that this is known; it shows in the next report.
func (p *progress) doubts(destination, answer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answer == "" {
		p.doubt = nil
		return
	}
	since := time.Now()
	if p.doubt != nil {
		since = p.doubt.Since
	}
	p.doubt = &job.Doubt{Since: since, Destination: destination, Answer: answer}
}

func (p *progress) report(r control.Result) {
	s := p.status()
	out := job.Progress{
		State: s.State.String(), Round: s.Round, Processes: s.Processes, Records: s.Records, Bytes: s.Bytes,
		Downtime: r.Downtime, Warnings: r.Warnings,
	}
	if s.State.Final() {
		out.Steps = p.steps.list()
	}
	p.mu.Lock()
	out.Phases = append(out.Phases, p.phases...)
	out.Doubt = p.doubt
	p.mu.Unlock()
	for _, sub := range s.Subsystems {
		out.Total += sub.Total
		took := time.Duration(0)
		if t := p.times[sub.Name]; t != nil {
			took = t.Took()
		}
		out.Subsystems = append(out.Subsystems, job.Subsystem{Name: sub.Name, Entities: sub.Entities, Bytes: sub.Bytes, Total: sub.Total, Note: sub.Note, Took: took})
	}
	now := time.Now()
	if d := now.Sub(p.at); !p.at.IsZero() && d > 0 && s.Bytes >= p.last.Bytes {
		out.Rate = uint64(float64(s.Bytes-p.last.Bytes) / d.Seconds())
	}
	p.last, p.at = s, now
	p.to.Report(out)
}
