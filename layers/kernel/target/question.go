// SPDX-License-Identifier: Apache-2.0

package target

import (
	"slices"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// Question is what a subsystem has to ask every thread of a stopped process,
// since nobody else can tell. A remote batch costs the thread and the tracer a
// switch of context each, whatever it holds: so the questions of all
// subsystems are asked together, when the first of them is.
//
// The calls change nothing, and nothing that an export does while the threads
// are stopped changes what they answer.
type Question struct {
	// Size is how much memory the calls of one thread read and fill, in bytes.
	Size int
	// Prepare, if set, fills what the calls read.
	Prepare func(b []byte)
	// Calls are made with that memory at an address.
	Calls func(at uint64) []tracer.Call
}

// Answer is what one thread says: the calls with their results, some of which
// may have failed, and the memory as they left it.
type Answer struct {
	Thread *tracer.Thread
	Calls  []tracer.Call
	Memory []byte
}

// WillAsk announces, on an export, what will be asked of every process.
// Subsystems do so when they are made; what was not announced can be asked all
// the same, in a batch of its own.
func (e Env) WillAsk(questions ...*Question) {
	s := e.Source
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range questions {
		if !slices.Contains(s.questions, q) {
			s.questions = append(s.questions, q)
		}
	}
}

// Ask returns every thread's answer, the leader's first.
func (p *Process) Ask(q *Question) ([]Answer, error) {
	p.mu.Lock()
	known, ok := p.answers[q]
	p.mu.Unlock()
	if ok {
		return known, nil
	}
	p.source.mu.Lock()
	all := slices.Clone(p.source.questions)
	p.source.mu.Unlock()
	if !slices.Contains(all, q) {
		all = []*Question{q}
	}
	answers, err := ask(p.Traced, all)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answers == nil {
		p.answers = map[*Question][]Answer{}
	}
	for i, q := range all {
		p.answers[q] = answers[i]
	}
	return p.answers[q], nil
}

// ask asks all threads all questions in one batch each.
func ask(p *tracer.Process, questions []*Question) ([][]Answer, error) {
	const align = 8
	offsets, each := make([]int, len(questions)), 0
	for i, q := range questions {
		offsets[i] = each
		each += (q.Size + align - 1) &^ (align - 1)
	}
	threads := p.Threads()
	sc, err := p.Scratch()
	if err != nil {
		return nil, err
	}
	defer sc.Release(sc.Mark())
	b := make([]byte, each*len(threads))
	for t := range threads {
		for i, q := range questions {
			if q.Prepare != nil {
				q.Prepare(b[each*t+offsets[i]:][:q.Size])
			}
		}
	}
	at, err := sc.Put(b)
	if err != nil {
		return nil, err
	}
	batches, starts := make([]tracer.Batch, len(threads)), make([]int, len(questions)+1)
	for t, th := range threads {
		batches[t].Thread = th
		for i, q := range questions {
			starts[i] = len(batches[t].Calls)
			batches[t].Calls = append(batches[t].Calls, q.Calls(at+uint64(each*t+offsets[i]))...)
		}
		starts[len(questions)] = len(batches[t].Calls) // the same for all threads
	}
	if err := p.RunEach(batches); err != nil {
		return nil, err
	}
	if err := p.Read(at, b); err != nil {
		return nil, err
	}
	out := make([][]Answer, len(questions))
	for i, q := range questions {
		out[i] = make([]Answer, len(threads))
		for t, th := range threads {
			out[i][t] = Answer{th, batches[t].Calls[starts[i]:starts[i+1]], b[each*t+offsets[i]:][:q.Size]}
		}
	}
	return out, nil
}
