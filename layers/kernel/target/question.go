// SPDX-License-Identifier: Apache-2.0

package target

import (
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// Question is what a subsystem has to ask every thread of a stopped process,
// since nobody else can tell. A remote batch costs the thread and the tracer a
// switch of context each, whatever it holds: so the questions of all
// subsystems are asked together, when the last process was stopped.
//
// The calls change nothing, and nothing that an export does while the threads
// are stopped changes what they answer.
type Question struct {
	// Process: what it asks is the same for all threads, and the leader alone is
	// asked.
	Process bool
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

// AskLeader returns the answer to a question of the process as a whole, whose
// calls must all have succeeded.
func (p *Process) AskLeader(q *Question) (Answer, error) {
	list, err := p.Ask(q)
	if err != nil {
		return Answer{}, err
	}
	if len(list) == 0 {
		return Answer{}, tracer.ErrExited
	}
	return list[0], tracer.Check(list[0].Calls)
}

// Ask returns every thread's answer, the leader's first. To a question of the
// process there is the leader's only.
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

// askAll asks several stopped processes side by side what was announced. What
// fails is asked again by whoever wants to know, and fails there.
func (s *Source) askAll(processes []*Process) {
	s.mu.Lock()
	all := slices.Clone(s.questions)
	s.mu.Unlock()
	if len(all) == 0 {
		return
	}
	if len(processes) == 1 {
		_ = processes[0].Traced.Do(func() error { _, err := processes[0].Ask(all[0]); return err })
		return
	}
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, p := range processes {
		g.Go(func() error {
			return p.Traced.Do(func() error {
				_, err := p.Ask(all[0])
				return err
			})
		})
	}
	_ = g.Wait()
}

// ask asks all threads all questions in one batch each.
func ask(p *tracer.Process, questions []*Question) ([][]Answer, error) {
	// Of the process: behind the others, so that the leader's block and batch
	// begin as all others do.
	ordered := slices.Clone(questions)
	slices.SortStableFunc(ordered, func(a, b *Question) int { return rank(a) - rank(b) })
	l := newLayout(ordered)
	threads := p.Threads()
	if len(threads) == 0 {
		return nil, tracer.ErrExited
	}
	sc, err := p.Scratch()
	if err != nil {
		return nil, err
	}
	defer sc.Release(sc.Mark())
	b := make([]byte, l.leader+l.each*(len(threads)-1))
	for t := range threads {
		for i, q := range l.of(t) {
			if q.Prepare != nil {
				q.Prepare(l.block(b, t, i))
			}
		}
	}
	at, err := sc.Put(b)
	if err != nil {
		return nil, err
	}
	batches, starts := make([]tracer.Batch, len(threads)), make([]int, len(ordered)+1)
	for t, th := range threads {
		batches[t].Thread = th
		for i, q := range l.of(t) {
			if t == 0 {
				starts[i] = len(batches[t].Calls)
			}
			batches[t].Calls = append(batches[t].Calls, q.Calls(at+uint64(l.start(t)+l.offsets[i]))...)
		}
	}
	starts[len(ordered)] = len(batches[0].Calls)
	if err := p.RunEach(batches); err != nil {
		return nil, err
	}
	if err := p.Read(at, b); err != nil {
		return nil, err
	}
	out := make([][]Answer, len(questions))
	for t, th := range threads {
		for i, q := range l.of(t) {
			n := slices.Index(questions, q)
			out[n] = append(out[n], Answer{th, batches[t].Calls[starts[i]:starts[i+1]], l.block(b, t, i)})
		}
	}
	return out, nil
}

func rank(q *Question) int {
	if q.Process {
		return 1
	}
	return 0
}

// questionLayout is where the answers of one round of questions lie: a block for
// each thread, the leader's first, which is the largest.
type questionLayout struct {
	ordered []*Question
	offsets []int // of each question in a block
	common  int   // questions for every thread
	// leader and each are the sizes of the leader's block and the others'.
	leader, each int
}

func newLayout(ordered []*Question) *questionLayout {
	const align = 8
	l := &questionLayout{ordered: ordered, offsets: make([]int, len(ordered))}
	for i, q := range ordered {
		l.offsets[i] = l.leader
		l.leader += (q.Size + align - 1) &^ (align - 1)
		if !q.Process {
			l.each, l.common = l.leader, i+1
		}
	}
	return l
}

// of are the questions for a thread.
func (l *questionLayout) of(thread int) []*Question {
	if thread == 0 {
		return l.ordered
	}
	return l.ordered[:l.common]
}

func (l *questionLayout) start(thread int) int {
	if thread == 0 {
		return 0
	}
	return l.leader + l.each*(thread-1)
}

func (l *questionLayout) block(b []byte, thread, question int) []byte {
	return b[l.start(thread)+l.offsets[question]:][:l.ordered[question].Size]
}
