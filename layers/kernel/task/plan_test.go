// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// world is the kernel's part in a history: it does what a step says, and knows
// what it may not do.
type world struct {
	all   map[int]*proc
	next  int
	ttys  ttys
	parts uint64 // the last number of one
}

type proc struct {
	pid, parent, group, session, signal int
	reaper, dead                        bool
	tty                                 int // controlling terminal, 0 for none
	parts                               target.Parts
}

func newWorld() *world {
	return &world{all: map[int]*proc{1: {pid: 1, group: 1, session: 1, signal: 17, parts: target.Parts{1, 2, 3, 4}}}, next: 2, ttys: newTTYs(), parts: 4}
}

func (w *world) fork(by, pid, signal int, sibling bool) error {
	return w.clone(by, pid, signal, sibling, target.Common{})
}

// clone is a fork that leaves things in common.
func (w *world) clone(by, pid, signal int, sibling bool, c target.Common) error {
	if c.Handlers && !c.Memory {
		return errors.New("handlers in common, and not memory")
	}
	if err := w.copy(by, pid, signal, sibling); err != nil {
		return err
	}
	for i, has := range []bool{c.Memory, c.Handlers, c.Directories, c.Table} {
		if !has {
			w.part(pid, i)
		}
	}
	return nil
}

// part gives a process one of the things of its own.
func (w *world) part(pid, i int) {
	w.parts++
	w.all[pid].parts[i] = w.parts
}

func (w *world) copy(by, pid, signal int, sibling bool) error {
	m := w.all[by]
	if m == nil || m.dead || w.all[pid] != nil || w.idInUse(pid) {
		return fmt.Errorf("%d cannot make %d", by, pid)
	}
	c := *m
	c.pid, c.parent, c.signal, c.reaper = pid, by, signal, false
	if sibling {
		if by == 1 {
			return errors.New("the init's sibling")
		}
		c.parent, c.signal = m.parent, m.signal
	}
	w.all[pid] = &c
	return nil
}

// idInUse: a number stays in use as long as a group or session has it.
func (w *world) idInUse(pid int) bool {
	for _, o := range w.all {
		if o.group == pid || o.session == pid {
			return true
		}
	}
	return false
}

func (w *world) setsid(pid int) error {
	for _, o := range w.all {
		if o.group == pid {
			return fmt.Errorf("setsid of %d, which leads a group", pid)
		}
	}
	m := w.all[pid]
	m.session, m.group, m.tty = pid, pid, 0
	return nil
}

func (w *world) setpgid(pid, group int) error {
	m := w.all[pid]
	if m.dead || m.session == pid {
		return fmt.Errorf("setpgid of %d", pid)
	}
	for _, o := range w.all {
		if group == pid || o.group == group && o.session == m.session {
			m.group = group
			return nil
		}
	}
	return fmt.Errorf("setpgid of %d: no group %d in its session", pid, group)
}

// exit ends a process: its children are adopted.
func (w *world) exit(pid int) {
	if m := w.all[pid]; m.tty != 0 && m.session == pid {
		_ = w.leave(pid)
	}
	r := w.all[w.all[pid].parent]
	for r.pid != 1 && (!r.reaper || r.dead) {
		r = w.all[r.parent]
	}
	for _, o := range w.all {
		if o.parent == pid {
			o.parent, o.signal = r.pid, 17
		}
	}
	w.all[pid].dead = true
}

func (w *world) wait(by, pid int) error {
	c := w.all[pid]
	if c == nil || c.parent != by || !c.dead || w.all[by].dead {
		return fmt.Errorf("%d waits for %d", by, pid)
	}
	delete(w.all, pid)
	return nil
}

func (w *world) do(s step) error {
	if s.kind != stepFork && (w.all[s.pid] == nil || w.all[s.pid].dead) {
		return fmt.Errorf("step %+v of nobody", s)
	}
	switch s.kind {
	case stepFork:
		return w.clone(s.by, s.pid, s.signal, s.sibling, s.common)
	case stepSession:
		return w.setsid(s.pid)
	case stepReaper:
		w.all[s.pid].reaper = true
	case stepGroup:
		return w.setpgid(s.pid, s.group)
	case stepTerminal:
		return w.take(s.pid, s.terminal)
	case stepNoTerminal:
		return w.leave(s.pid)
	case stepForeground:
		return w.front(s.pid, s.terminal, s.group)
	case stepEnd:
		w.exit(s.pid)
		return w.wait(s.by, s.pid)
	case stepZombie:
		w.exit(s.pid)
	case stepPart:
		for i, has := range []bool{s.common.Memory, s.common.Handlers, s.common.Directories, s.common.Table} {
			if has {
				w.part(s.pid, i)
			}
		}
	}
	return nil
}

// nodes are what an export sees of the world.
func (w *world) nodes() []*state.Node {
	var out []*state.Node
	for _, p := range w.all {
		n := &state.Node{Pid: int32(p.pid), Parent: int32(p.parent), ProcessGroup: int32(p.group), Session: int32(p.session),
			ExitSignal: int32(p.signal), ChildSubreaper: p.reaper, Id: uint32(p.pid)}
		for _, session := range w.ttys.session {
			n.NoTerminal = n.NoTerminal || !p.dead && session == p.session && p.tty == 0
		}
		if p.dead {
			n.Id, n.ChildSubreaper = 0, false
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *state.Node) int { return int(a.Pid - b.Pid) })
	return sortNodes(out)
}

// follow plays a plan and compares the outcome.
func follow(t *testing.T, nodes []*state.Node) {
	t.Helper()
	steps, err := plan(nodes, nil, nil, 1, 1)
	if err != nil {
		t.Fatalf("%v\n%s", err, show(nodes))
	}
	w := newWorld()
	for _, s := range steps {
		if err := w.do(s); err != nil {
			t.Fatalf("step %+v: %v\nof %+v\n%s", s, err, steps, show(nodes))
		}
	}
	if got, want := show(w.nodes()), show(nodes); got != want {
		t.Fatalf("plan %+v\nleads to\n%sinstead of\n%s", steps, got, want)
	}
}

func show(nodes []*state.Node) (s string) {
	list := slices.Clone(nodes)
	slices.SortFunc(list, func(a, b *state.Node) int { return int(a.Pid - b.Pid) })
	for _, n := range list {
		s += fmt.Sprintf("pid %d parent %d group %d session %d signal %d reaper %v dead %v\n",
			n.Pid, n.Parent, n.ProcessGroup, n.Session, n.ExitSignal, n.ChildSubreaper, dead(n))
	}
	return s
}

// TestPlanOfHistories: whatever processes have done, the plan ends in the same
// tree, by steps that the kernel allows; or it is refused by name.
func TestPlanOfHistories(t *testing.T) {
	refused, total := 0, 20000
	for seed := range uint64(total) {
		w := history(rand.New(rand.NewPCG(seed, 1)))
		nodes := w.nodes()
		var r *refusal
		if _, err := plan(nodes, nil, nil, 1, 1); errors.As(err, &r) {
			refused++
			continue
		}
		follow(t, nodes)
	}
	t.Logf("%d of %d refused", refused, total)
	if refused > total/20 {
		t.Errorf("%d of %d histories are refused", refused, total)
	}
}

// history lets processes do what they can.
func history(r *rand.Rand) *world {
	w := newWorld()
	w.live(r, 5+r.IntN(60))
	return w
}

// live lets n things happen.
func (w *world) live(r *rand.Rand, n int) {
	reapers := r.IntN(3) == 0
	for range n {
		var pids []int
		for pid, p := range w.all {
			if !p.dead {
				pids = append(pids, pid)
			}
		}
		slices.Sort(pids)
		pid := pids[r.IntN(len(pids))]
		p := w.all[pid]
		switch r.IntN(12) {
		case 0, 1, 2, 3:
			_ = w.fork(pid, w.next, 17, false)
			w.next++
		case 4:
			_ = w.setsid(pid)
		case 5, 6:
			_ = w.setpgid(pid, pid)
		case 7:
			_ = w.setpgid(pid, w.all[pids[r.IntN(len(pids))]].group)
		case 8:
			p.reaper = reapers
		default:
			if pid == 1 {
				continue
			}
			parent := p.parent
			w.exit(pid)
			if r.IntN(4) > 0 {
				_ = w.wait(parent, pid)
			}
			w.adoptDead()
		}
	}
}

// TestPlanFromAnEarlierTree: processes that were made for an earlier tree stay
// where they are the same in the later one, and the later one comes out of it.
func TestPlanFromAnEarlierTree(t *testing.T) {
	kept, total := 0, 0
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWorld()
		w.live(r, 5+r.IntN(40))
		early := slices.DeleteFunc(w.nodes(), dead)
		w.live(r, r.IntN(12))
		late := w.nodes()
		sent := map[uint32]*state.Node{}
		for _, n := range early {
			n.ChildSubreaper = false // nobody can tell it of a running process
			sent[n.Id] = n
		}
		first, err := plan(early, nil, nil, 1, 1)
		if _, e := plan(late, nil, nil, 1, 1); err != nil || e != nil {
			continue // refused, as by TestPlanOfHistories
		}
		markAhead(late, nil, sent)
		copied := newWorld()
		copied.play(t, first)
		stay := map[int]bool{1: true}
		for _, n := range late {
			if n.Ahead {
				stay[int(n.Pid)] = true
				kept++
			}
			total++
		}
		slices.Reverse(early) // children first
		for _, n := range early {
			if !stay[int(n.Pid)] {
				copied.exit(int(n.Pid))
				if err := copied.wait(copied.all[int(n.Pid)].parent, int(n.Pid)); err != nil {
					t.Fatal(err)
				}
			}
		}
		init := copied.all[1]
		steps, err := plan(late, nil, nil, init.session, init.group)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, show(late))
		}
		copied.play(t, steps)
		if got, want := show(copied.nodes()), show(late); got != want {
			t.Fatalf("seed %d: %+v\nleads to\n%sinstead of\n%s", seed, steps, got, want)
		}
	}
	t.Logf("%d of %d processes stay", kept, total)
	if kept < total/3 {
		t.Errorf("only %d of %d processes stay", kept, total)
	}
}

func (w *world) play(t *testing.T, steps []step) {
	t.Helper()
	for _, s := range steps {
		if err := w.do(s); err != nil {
			t.Fatalf("step %+v: %v\nof %+v", s, err, steps)
		}
	}
}

// adoptDead: the init waits for the dead that it adopts, most of the time.
func (w *world) adoptDead() {
	for pid, p := range w.all {
		if p.dead && p.parent == 1 && pid%3 != 0 {
			delete(w.all, pid)
		}
	}
}

func TestPlanRefusesForgedTrees(t *testing.T) {
	one := func() *state.Node { return &state.Node{Id: 1, Pid: 1, ProcessGroup: 1, Session: 1} }
	for name, nodes := range map[string][]*state.Node{
		"no init":            {{Id: 2, Pid: 2, ProcessGroup: 1, Session: 1}},
		"init twice":         {one(), one()},
		"dead init":          {{Pid: 1, ProcessGroup: 1, Session: 1}},
		"its own parent":     {one(), {Id: 2, Pid: 2, Parent: 2, ProcessGroup: 1, Session: 1}},
		"unknown parent":     {one(), {Id: 2, Pid: 2, Parent: 9, ProcessGroup: 1, Session: 1}},
		"dead parent":        {one(), {Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1}, {Id: 3, Pid: 3, Parent: 2, ProcessGroup: 1, Session: 1}},
		"pid twice":          {one(), {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1}, {Id: 3, Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1}},
		"negative pid":       {one(), {Id: 2, Pid: -2, Parent: 1, ProcessGroup: 1, Session: 1}},
		"large session":      {one(), {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1 << 30}},
		"signal":             {one(), {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1, ExitSignal: 99}},
		"group elsewhere":    {one(), {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 2, Session: 2}, {Id: 3, Pid: 3, Parent: 1, ProcessGroup: 2, Session: 1}},
		"leader in a group":  {one(), {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 1, Session: 2}},
		"sessions in circle": {one(), {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 3, Session: 3}, {Id: 3, Pid: 3, Parent: 2, ProcessGroup: 2, Session: 2}},
		"dead and sharing":   {one(), {Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1, SharesDirectories: true}},
		"sharing outside":    {one(), {Id: 2, Pid: 2, ProcessGroup: 1, Session: 1, SharesDirectories: true}},
		"dead with a table":  {one(), {Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1, SharesTable: true}},
		"a table outside":    {one(), {Id: 2, Pid: 2, ProcessGroup: 1, Session: 1, SharesTable: true}},
		"a table ahead":      {one(), {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 1, Session: 1, SharesTable: true, Ahead: true}},
		"outside":            {one(), {Id: 2, Pid: 2, Parent: 1}},
	} {
		if steps, err := plan(nodes, nil, nil, 1, 1); err == nil {
			t.Errorf("%s: accepted as %+v", name, steps)
		}
	}
}
