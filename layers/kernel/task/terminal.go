// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// Of terminals the tree has what the making of processes needs: which there
// are, and whose controlling terminals they are. The rest is the subsystem
// tty's, which also refuses those that cannot be carried.

// exportTerminals lists them and notes in the nodes who has none.
func (s *Subsystem) exportTerminals(processes []*target.Process, nodes []*state.Node) ([]*state.Pseudoterminal, error) {
	list, err := s.env.Source.Terminals()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	has := map[int32]bool{}
	for _, p := range processes {
		stat, err := p.Proc.Stat()
		if err != nil {
			return nil, err
		}
		has[int32(p.Traced.NSPid)] = stat.TTYNr != 0
	}
	markTerminals(nodes, list, has)
	return describeTerminals(list)
}

// describeTerminals lists the container's pseudoterminals.
func describeTerminals(list []*target.Terminal) ([]*state.Pseudoterminal, error) {
	out := make([]*state.Pseudoterminal, 0, len(list))
	for _, t := range list {
		m := &state.Pseudoterminal{
			Index: uint32(t.Index), Kind: kindOf(t), Session: int32(t.Session), Foreground: int32(t.Foreground),
		}
		if !t.HungUp {
			size, err := sizeOf(t)
			if err != nil {
				return nil, fmt.Errorf("terminal pts/%d: %w", t.Index, err)
			}
			m.Rows, m.Columns, m.Width, m.Height = uint32(size.Row), uint32(size.Col), uint32(size.Xpixel), uint32(size.Ypixel)
		}
		out = append(out, m)
	}
	return out, nil
}

func kindOf(t *target.Terminal) state.TerminalKind {
	switch {
	case t.Console:
		return state.TerminalKind_TERMINAL_KIND_CONSOLE
	case t.Master() != nil:
		return state.TerminalKind_TERMINAL_KIND_PAIR
	}
	return state.TerminalKind_TERMINAL_KIND_GONE
}

// sizeOf asks any end: both have one size.
func sizeOf(t *target.Terminal) (*unix.Winsize, error) {
	if len(t.Ends) == 0 {
		return &unix.Winsize{}, nil // nobody has it open
	}
	f, err := t.Ends[0].Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return nil, os.NewSyscallError("ioctl(TIOCGWINSZ)", err)
	}
	return size, nil
}

// markTerminals notes who has no controlling terminal though the session has.
func markTerminals(nodes []*state.Node, list []*target.Terminal, has map[int32]bool) {
	for _, n := range nodes {
		controlled := slices.ContainsFunc(list, func(t *target.Terminal) bool { return t.Session != 0 && t.Session == int(n.Session) })
		n.NoTerminal = !dead(n) && controlled && !has[n.Pid]
	}
}

// addTerminals takes those of a part of the tree.
func (s *Subsystem) addTerminals(m *state.Tree) error {
	if len(m.Terminal) > 0 && len(s.tree) > 0 {
		return fmt.Errorf("%w: terminals behind the first part of the tree", errImage)
	}
	last, console := -1, false
	for _, t := range m.Terminal {
		own := t.Kind == state.TerminalKind_TERMINAL_KIND_CONSOLE
		switch {
		case t.Index >= target.MaxTerminals || int(t.Index) <= last:
			return fmt.Errorf("%w: terminal %d behind %d", errImage, t.Index, last)
		case t.Kind < state.TerminalKind_TERMINAL_KIND_PAIR || t.Kind > state.TerminalKind_TERMINAL_KIND_GONE || own && console:
			return fmt.Errorf("%w: terminal %d is of kind %v", errImage, t.Index, t.Kind)
		case max(t.Rows, t.Columns, t.Width, t.Height) > math.MaxUint16:
			return fmt.Errorf("%w: size of terminal %d", errImage, t.Index)
		case t.Session < 0 || t.Session > maxThreads || t.Foreground < 0 || t.Foreground > maxThreads:
			return fmt.Errorf("%w: session of terminal %d", errImage, t.Index)
		}
		last, console = int(t.Index), console || own
	}
	s.terminals = append(s.terminals, m.Terminal...)
	return nil
}

// makeTerminals makes them while the frame's first process is alone.
func (s *Subsystem) makeTerminals() error {
	var list []target.TerminalPlan
	for _, t := range s.terminals {
		list = append(list, target.TerminalPlan{
			Index: int(t.Index), Console: t.Kind == state.TerminalKind_TERMINAL_KIND_CONSOLE, Gone: t.Kind == state.TerminalKind_TERMINAL_KIND_GONE,
			Size: unix.Winsize{Row: uint16(t.Rows), Col: uint16(t.Columns), Xpixel: uint16(t.Width), Ypixel: uint16(t.Height)},
		})
	}
	return s.env.Frame.MakeTerminals(list)
}

// addTerminals checks whose controlling terminals they are.
func (p *planner) addTerminals(list []*state.Pseudoterminal) error {
	for _, t := range list {
		if t.Session == 0 {
			continue
		}
		leader := p.byPid[int(t.Session)]
		if leader == nil || dead(leader.node) || leader.node.Session != t.Session || p.terminals[leader.pid] != nil {
			return fmt.Errorf("%w: terminal %d controls session %d, which has no leader or another terminal", errImage, t.Index, t.Session)
		}
		p.terminals[leader.pid] = t
	}
	return nil
}

// passConsole takes the console from the init where it is not to be its
// controlling terminal, and gives it what it is to have if it leads its session
// already.
func (p *planner) passConsole(first *member, list []*state.Pseudoterminal) {
	for _, t := range list {
		if t.Kind == state.TerminalKind_TERMINAL_KIND_CONSOLE && int(t.Session) != first.session {
			p.do(step{kind: stepNoTerminal, pid: first.pid, terminal: int(t.Index)})
		}
	}
	if first.session == first.pid {
		p.takeTerminal(first)
	}
}

// takeTerminal gives the leader of a session its terminal, before it makes
// anybody who is to inherit it.
func (p *planner) takeTerminal(leader *member) {
	if t := p.terminals[leader.pid]; t != nil {
		p.do(step{kind: stepTerminal, pid: leader.pid, terminal: int(t.Index)})
	}
}

// foregrounds puts process groups into the foreground, and takes the terminal
// from those that have given it up.
func (p *planner) foregrounds(list []*state.Pseudoterminal) error {
	for _, t := range list {
		if t.Session == 0 || t.Foreground == 0 {
			continue
		}
		if !slices.ContainsFunc(p.members, func(m *member) bool { return m.group == int(t.Foreground) && m.session == int(t.Session) }) {
			return fmt.Errorf("%w: group %d in the foreground of terminal %d is not in session %d", errImage, t.Foreground, t.Index, t.Session)
		}
		p.do(step{kind: stepForeground, pid: int(t.Session), group: int(t.Foreground), terminal: int(t.Index)})
	}
	for _, m := range p.members {
		t := p.terminals[m.session]
		if m.node.NoTerminal && t != nil && m.pid != m.session {
			p.do(step{kind: stepNoTerminal, pid: m.pid, terminal: int(t.Index)})
		}
	}
	return nil
}

// terminal carries out a step that is about one.
func (g *grower) terminal(t *target.Task, s step) error {
	m := g.frame.Terminal(s.terminal)
	if m == nil || t == nil {
		return fmt.Errorf("%w: process %d and terminal %d", errImage, s.pid, s.terminal)
	}
	switch s.kind {
	case stepTerminal:
		return t.TakeTerminal(m)
	case stepNoTerminal:
		return t.LeaveTerminal(m)
	}
	return t.SetForeground(m, s.group)
}
