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

// ttys are the world's terminals: of each the session that it controls and its
// foreground group, 0 for none.
type ttys struct{ session, foreground map[int]int }

func newTTYs() ttys { return ttys{map[int]int{}, map[int]int{}} }

// take is TIOCSCTTY.
func (w *world) take(pid, tty int) error {
	m := w.all[pid]
	if m.session != pid || m.tty != 0 && m.tty != tty || w.ttys.session[tty] != 0 && w.ttys.session[tty] != pid {
		return fmt.Errorf("%d takes terminal %d", pid, tty)
	}
	m.tty, w.ttys.session[tty] = tty, pid
	if w.ttys.foreground[tty] == 0 {
		w.ttys.foreground[tty] = m.group
	}
	return nil
}

// leave is TIOCNOTTY.
func (w *world) leave(pid int) error {
	m := w.all[pid]
	if m.tty == 0 {
		return fmt.Errorf("%d leaves no terminal", pid)
	}
	if m.session == pid {
		w.ttys.session[m.tty], w.ttys.foreground[m.tty] = 0, 0
		for _, o := range w.all {
			if o.session == pid {
				o.tty = 0
			}
		}
	}
	m.tty = 0
	return nil
}

// front is TIOCSPGRP.
func (w *world) front(pid, tty, group int) error {
	ok := false
	for _, o := range w.all {
		ok = ok || o.group == group && o.session == w.all[pid].session
	}
	if !ok || w.all[pid].tty != tty {
		return fmt.Errorf("%d puts group %d in the foreground of %d", pid, group, tty)
	}
	w.ttys.foreground[tty] = group
	return nil
}

// terminals are what an export sees.
func (w *world) terminals() (out []*state.Pseudoterminal) {
	for tty, session := range w.ttys.session {
		kind := state.TerminalKind_TERMINAL_KIND_PAIR
		if tty == console {
			kind = state.TerminalKind_TERMINAL_KIND_CONSOLE
		}
		t := &state.Pseudoterminal{Index: uint32(tty), Kind: kind, Session: int32(session)}
		// The group may have no members any more.
		for _, p := range w.all {
			if session != 0 && p.group == w.ttys.foreground[tty] {
				t.Foreground = int32(p.group)
			}
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *state.Pseudoterminal) int { return int(a.Index) - int(b.Index) })
	return out
}

// console is the number of the terminal that a container is created with.
const console = 1

// withConsole is a world whose init has it.
func withConsole() *world {
	w := newWorld()
	if err := w.take(1, console); err != nil {
		panic(err)
	}
	return w
}

// TestPlanOfTerminals: whoever has taken, left and inherited terminals, the plan
// ends in the same.
func TestPlanOfTerminals(t *testing.T) {
	taken := 0
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := withConsole()
		for range 40 {
			w.anything(r)
		}
		nodes, terminals := w.nodes(), w.terminals()
		steps, err := plan(nodes, nil, terminals, 1, 1)
		var refused *refusal
		if errors.As(err, &refused) {
			continue
		}
		if err != nil {
			t.Fatalf("%v\n%s%v", err, show(nodes), terminals)
		}
		copied := withConsole()
		for _, s := range steps {
			if err := copied.do(s); err != nil {
				t.Fatalf("seed %d: step %+v: %v\nof %+v\n%s%v", seed, s, err, steps, show(nodes), terminals)
			}
		}
		if got, want := showTerminals(copied.nodes(), copied.terminals()), showTerminals(nodes, terminals); got != want {
			t.Fatalf("seed %d: plan %+v\nleads to\n%sinstead of\n%s", seed, steps, got, want)
		}
		for _, tty := range terminals {
			if got := copied.ttys.foreground[int(tty.Index)]; tty.Foreground != 0 && got != int(tty.Foreground) {
				t.Fatalf("seed %d: group %d in the foreground of terminal %d, want %d", seed, got, tty.Index, tty.Foreground)
			}
		}
		taken += len(terminals)
	}
	if taken < 5000 {
		t.Errorf("only %d terminals in all histories", taken)
	}
}

// showTerminals shows who has which.
func showTerminals(nodes []*state.Node, list []*state.Pseudoterminal) string {
	s := show(nodes)
	for _, n := range nodes {
		s += fmt.Sprintf("%d without terminal %v\n", n.Pid, n.NoTerminal)
	}
	for _, t := range list {
		if t.Session != 0 {
			s += fmt.Sprintf("terminal %d session %d\n", t.Index, t.Session)
		}
	}
	return s
}

// anything lets one process do something.
func (w *world) anything(r *rand.Rand) {
	var pids []int
	for pid, p := range w.all {
		if !p.dead {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	pid := pids[r.IntN(len(pids))]
	switch r.IntN(9) {
	case 0, 1, 2:
		_ = w.fork(pid, w.next, 17, false)
		w.next++
	case 3:
		_ = w.setsid(pid)
	case 4:
		_ = w.setpgid(pid, pid)
	case 5:
		_ = w.take(pid, 2+r.IntN(4))
	case 6:
		_ = w.leave(pid)
	case 7:
		_ = w.front(pid, w.all[pid].tty, w.all[pids[r.IntN(len(pids))]].group)
	case 8:
		if pid != 1 {
			parent := w.all[pid].parent
			w.exit(pid)
			_ = w.wait(parent, pid)
			w.adoptDead()
		}
	}
}

func TestForgedTerminalsAreRefused(t *testing.T) {
	nodes := func() []*state.Node {
		return []*state.Node{
			{Id: 1, Pid: 1, ProcessGroup: 1, Session: 1}, {Id: 2, Pid: 2, Parent: 1, ProcessGroup: 2, Session: 2},
			{Pid: 3, Parent: 1, ProcessGroup: 3, Session: 3},
		}
	}
	const pair, own = state.TerminalKind_TERMINAL_KIND_PAIR, state.TerminalKind_TERMINAL_KIND_CONSOLE
	for what, list := range map[string][]*state.Pseudoterminal{
		"session without a leader": {{Kind: pair, Session: 9}},
		"dead leader":              {{Kind: pair, Session: 3}},
		"two terminals":            {{Kind: pair, Session: 2}, {Kind: pair, Index: 1, Session: 2}},
		"group of another session": {{Kind: pair, Session: 2, Foreground: 1}},
		"group of nobody":          {{Kind: pair, Session: 2, Foreground: 7}},
	} {
		if steps, err := plan(nodes(), nil, list, 1, 1); !errors.Is(err, errImage) {
			t.Errorf("%s: %+v, %v", what, steps, err)
		}
	}
	for what, list := range map[string][]*state.Pseudoterminal{
		"large number":  {{Kind: pair, Index: target.MaxTerminals}},
		"not in order":  {{Kind: pair, Index: 2}, {Kind: pair, Index: 1}},
		"twice":         {{Kind: pair}, {Kind: pair}},
		"no kind":       {{}},
		"unknown kind":  {{Kind: 4}},
		"two consoles":  {{Kind: own}, {Kind: own, Index: 1}},
		"large size":    {{Kind: pair, Rows: 1 << 16}},
		"session below": {{Kind: pair, Session: -1}},
		"large group":   {{Kind: pair, Foreground: 1 << 30}},
	} {
		s := &Subsystem{}
		if err := s.addTerminals(&state.Tree{Terminal: list}); !errors.Is(err, errImage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := &Subsystem{tree: nodes()}
	if err := s.addTerminals(&state.Tree{Terminal: []*state.Pseudoterminal{{Kind: pair}}}); !errors.Is(err, errImage) {
		t.Errorf("behind the first part: %v", err)
	}
}
