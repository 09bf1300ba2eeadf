// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"slices"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// A process gets its session and its first process group from the process that
// makes it, its parent likewise unless that ends. What a tree looks like is the
// outcome of a history, some of whose processes are gone: leaders of sessions
// and groups, and the parents of orphans. plan finds a history that ends in the
// same tree, with helpers in the place of those that are gone.
//
// What processes have in common (clone(2) with CLONE_VM and its like) they have since
// one was made by the other, or both by a third. So such a process is made by one that
// has it: its parent, a sibling (CLONE_PARENT), or a helper of such a one, at whose end
// it is adopted.
//
// Sources: setsid(2), setpgid(2), clone(2), prctl(2) PR_SET_CHILD_SUBREAPER;
// kernel/exit.c (find_new_reaper, reparent_leader), kernel/sys.c (setpgid).

// stepKind is what a step of the history does.
type stepKind int

const (
	// stepFork: by makes pid.
	stepFork stepKind = iota
	// stepSession: pid becomes the leader of a session.
	stepSession
	// stepReaper: pid adopts the orphans below it from now on.
	stepReaper
	// stepGroup: pid enters a process group, or makes it if it is its own pid.
	stepGroup
	// stepTerminal: pid, a session's leader, takes its terminal.
	stepTerminal
	// stepNoTerminal: pid gives up the controlling terminal of its session; if
	// it leads that, for all of it.
	stepNoTerminal
	// stepForeground: the group becomes the foreground of pid's terminal.
	stepForeground
	// stepEnd: pid, a helper, ends, and its parent by waits for it.
	stepEnd
	// stepZombie: pid ends for good, with its status.
	stepZombie
	// stepPart: pid has directories or a descriptor table of its own from now on.
	stepPart
)

// step is one event of the history. Ids are those in the pid namespace.
type step struct {
	kind    stepKind
	pid, by int
	// sibling: by's parent becomes pid's (CLONE_PARENT).
	sibling bool
	signal  int // exit signal of a fork; 0 for helpers, whose end nobody is told
	group   int
	// terminal is its index in the image.
	terminal int
	// common is what a fork leaves in common, or what stepPart makes its own again.
	common target.Common
}

// member is a process of the history.
type member struct {
	node     *state.Node // nil for a helper
	parent   *member
	children []*member
	// need is the session that its maker has to be in; anySession if it does
	// not matter, since it and all below it live in sessions of their own.
	need int
	// session and group that it is in now; made: it exists.
	session, group int
	made           bool
	pid            int
	// kept: it exists already, by an earlier tree.
	kept bool
	// partner is with whom it has something in common, which makes it then; nil for
	// nobody. common is what.
	partner *member
	common  target.Common
	// lent is what it has in common with its maker until it has made its children.
	lent target.Common
}

const anySession = -1

// planner makes a history.
type planner struct {
	steps   []step
	members []*member // in the order of the nodes
	byPid   map[int]*member
	used    map[int]bool // ids that no temporary helper may have
	helpers []*member    // that are alive, in the order in which they were made
	// terminals are the controlling ones by their sessions.
	terminals map[int]*state.Pseudoterminal
}

// initPid is the first process of a pid namespace.
const initPid = 1

// plan returns the history of a tree. The init exists already, in a session and
// a group: 1, or 0 for those of somebody outside. terminals exist, too; the
// console, if there is one, is the init's controlling terminal. shared is what
// processes have in common, but for what their nodes say.
func plan(nodes []*state.Node, shared []*state.SharedParts, terminals []*state.Pseudoterminal, session, group int) ([]step, error) {
	p := &planner{byPid: map[int]*member{}, used: map[int]bool{}, terminals: map[int]*state.Pseudoterminal{}}
	if err := p.add(nodes); err != nil {
		return nil, err
	}
	if err := p.share(shared); err != nil {
		return nil, err
	}
	if err := p.addTerminals(terminals); err != nil {
		return nil, err
	}
	p.needs()
	first := p.members[0]
	first.made, first.session, first.group = true, session, group
	p.passConsole(first, terminals)
	if err := p.grow(first); err != nil {
		return nil, err
	}
	if err := p.adopted(); err != nil {
		return nil, err
	}
	if err := p.groups(); err != nil {
		return nil, err
	}
	if err := p.foregrounds(terminals); err != nil {
		return nil, err
	}
	for i := len(p.helpers) - 1; i >= 0; i-- {
		h := p.helpers[i]
		p.do(step{kind: stepEnd, pid: h.pid, by: h.parent.pid})
	}
	for _, m := range p.members {
		if dead(m.node) {
			p.do(step{kind: stepZombie, pid: m.pid, by: m.parent.pid})
		}
	}
	return p.steps, nil
}

func dead(n *state.Node) bool { return n.Id == 0 }

func (p *planner) do(s step) { p.steps = append(p.steps, s) }

// add checks the nodes and links them.
func (p *planner) add(nodes []*state.Node) error {
	for i, n := range nodes {
		m := &member{node: n, pid: int(n.Pid)}
		bad := func(what string) error { return fmt.Errorf("%w: process %d: %s", errImage, n.Pid, what) }
		switch {
		case (i == 0) != (n.Pid == initPid):
			return bad("the init has to be the first process")
		case n.Pid <= 0 || n.Pid > maxThreads || n.Session < 0 || n.ProcessGroup < 0 || n.Session > maxThreads || n.ProcessGroup > maxThreads:
			return bad("ids out of range")
		case p.byPid[m.pid] != nil:
			return bad("exists twice")
		case n.ExitSignal < 0 || n.ExitSignal > 64:
			return bad(fmt.Sprintf("exit signal %d", n.ExitSignal))
		case i == 0 && (n.Parent != 0 || dead(n)):
			return bad("the init cannot be dead or have a parent")
		case (n.SharesDirectories || n.SharesTable) && (dead(n) || n.Parent == 0):
			return bad("it shares its working directory or its descriptor table with nobody")
		case (n.SharesDirectories || n.SharesTable) && n.Ahead:
			return bad("it exists already, and shares something with its parent")
		}
		if i > 0 {
			// A process that was started from outside has no parent in the
			// namespace: the init adopts it.
			m.parent = p.byPid[max(int(n.Parent), initPid)]
			if m.parent == nil || dead(m.parent.node) {
				return bad("its parent does not exist")
			}
			if n.Ahead && (dead(n) || i > 0 && m.parent.pid != initPid && !m.parent.kept) {
				return bad("it cannot exist already")
			}
			m.parent.children = append(m.parent.children, m)
			if n.SharesDirectories || n.SharesTable {
				m.partner, m.common = m.parent, target.Common{Directories: n.SharesDirectories, Table: n.SharesTable}
			}
			if m.kept = n.Ahead; m.kept {
				m.made, m.session, m.group = true, int(n.Session), int(n.ProcessGroup)
			}
		}
		p.members, p.byPid[m.pid] = append(p.members, m), m
		for _, id := range []int32{n.Pid, n.Session, n.ProcessGroup} {
			p.used[int(id)] = true
		}
	}
	return nil
}

// needs finds out, from the leaves to the root, in which session a process has
// to be born.
func (p *planner) needs() {
	for i := len(p.members) - 1; i >= 0; i-- {
		m := p.members[i]
		m.need = int(m.node.Session)
		if m.need != m.pid {
			continue
		}
		m.need = anySession
		for _, c := range m.children {
			if m.need == anySession && c.need != m.pid && !c.byOther() && !p.bySibling(m, c.need) && !p.strayed(m, c.need) {
				m.need = c.need
			}
		}
	}
}

// bySibling: the session is one that a child of m has made, in which m never was.
// Another child of m that is in it was made by that one, or by one that it has made.
func (p *planner) bySibling(m *member, session int) bool {
	leader := p.byPid[session]
	return leader != nil && leader.parent == m
}

// strayed: a child of m in this session was not born there but adopted by m,
// because none of its ancestors is there.
func (p *planner) strayed(m *member, session int) bool {
	if !m.node.ChildSubreaper {
		return false
	}
	for a := m.parent; a != nil; a = a.parent {
		if int(a.node.Session) == session {
			return false
		}
	}
	return true
}

// grow makes the descendants of m that it can make itself: those of the session
// in which it was born first.
func (p *planner) grow(m *member) error {
	if m.node.ChildSubreaper {
		p.do(step{kind: stepReaper, pid: m.pid})
	}
	for _, c := range m.children {
		if c.kept {
			if err := p.grow(c); err != nil {
				return err
			}
		}
	}
	if int(m.node.Session) != m.session {
		for _, c := range m.children {
			if !c.made && c.need == m.session && !c.byOther() {
				if err := p.fork(m, c); err != nil {
					return err
				}
			}
		}
		if int(m.node.Session) != m.pid {
			return fmt.Errorf("%w: process %d cannot come from session %d into session %d", errImage, m.pid, m.session, m.node.Session)
		}
		p.lead(m)
	}
	for _, c := range m.children {
		if !c.made && (c.need == m.session || c.need == anySession) && !c.byOther() {
			if err := p.fork(m, c); err != nil {
				return err
			}
		}
	}
	if m.lent.Any() {
		p.do(step{kind: stepPart, pid: m.pid, common: m.lent})
	}
	return nil
}

// lead makes m the leader of a session.
func (p *planner) lead(m *member) {
	p.do(step{kind: stepSession, pid: m.pid})
	m.session, m.group = m.pid, m.pid
	p.takeTerminal(m)
}

// fork makes c, a child of m, and all below it.
func (p *planner) fork(m, c *member) error {
	p.born(m, c, step{kind: stepFork, by: m.pid, pid: c.pid, signal: int(c.node.ExitSignal), common: c.common})
	return p.grow(c)
}

// born notes what a new process has from its maker.
func (p *planner) born(maker, c *member, s step) {
	p.do(s)
	c.made, c.session, c.group = true, maker.session, maker.group
}

// adopted makes the processes whose session their parent never was in: orphans
// that were adopted. One may have to wait for another that leads its session.
func (p *planner) adopted() error {
	for {
		var left *member
		progress := false
		for _, m := range p.members {
			if m.made || !m.parent.made {
				continue
			}
			ok, err := p.adopt(m)
			if err != nil {
				return err
			}
			progress = progress || ok
			if !ok {
				left = m
			}
		}
		if left == nil && !progress {
			return nil
		}
		if !progress && left.partner != nil {
			return fmt.Errorf("%w: process %d has something in common with process %d, and one waits for the other", errImage, left.pid, left.partner.pid)
		}
		if !progress {
			return fmt.Errorf("%w: process %d and its session %d wait for each other", errImage, left.pid, left.need)
		}
	}
}

// adopt makes one orphan. It reports false if the leader of its session is
// still to be made.
func (p *planner) adopt(m *member) (bool, error) {
	if m.partner != nil {
		return p.adoptSharer(m)
	}
	if m.need <= 0 {
		return false, &refusal{fmt.Sprintf("process %d", m.pid), "its session is that of a process outside of the container", ""}
	}
	leader := p.byPid[m.need]
	switch {
	case leader == nil:
		var err error
		if leader, err = p.stand(m); err != nil {
			return false, err
		}
	case !leader.made:
		return false, nil
	}
	s := step{kind: stepFork, pid: m.pid, signal: int(m.node.ExitSignal)}
	switch {
	case leader.node == nil && leader.parent != m.parent:
		return false, unknownHistory(m)
	case leader.node == nil: // the helper's end makes it an orphan
		s.by = leader.pid
		p.born(leader, m, s)
	case leader.parent == m.parent && leader.node.ExitSignal == m.node.ExitSignal:
		s.by, s.sibling = leader.pid, true
		p.born(leader, m, s)
	default:
		if err := p.byMiddle(leader, m, s); err != nil {
			return false, err
		}
	}
	if m.session != m.need {
		return false, fmt.Errorf("%w: process %d was not made in session %d", errImage, m.pid, m.need)
	}
	return true, p.grow(m)
}

// stand makes a helper in the place of a session's leader that is gone. What it
// makes is adopted by its own parent at its end.
func (p *planner) stand(m *member) (*member, error) {
	if m.parent.pid != initPid && !m.parent.node.ChildSubreaper {
		return nil, unknownHistory(m)
	}
	h := p.helper(m.parent, m.need, target.Common{})
	p.lead(h)
	p.helpers = append(p.helpers, h)
	return h, nil
}

// helper is a process that is not in the image.
func (p *planner) helper(by *member, pid int, common target.Common) *member {
	h := &member{parent: by, pid: pid}
	p.born(by, h, step{kind: stepFork, by: by.pid, pid: pid, common: common})
	p.byPid[pid], p.used[pid] = h, true
	return h
}

func unknownHistory(orphan *member) *refusal {
	return &refusal{fmt.Sprintf("process %d", orphan.pid), fmt.Sprintf("how it came into session %d and became a child of process %d is not known", orphan.need, orphan.parent.pid), ""}
}

// byMiddle makes an orphan by a process that ends at once, which has in common with
// its maker what the orphan has.
func (p *planner) byMiddle(leader, m *member, s step) error {
	if p.reaper(leader) != m.parent {
		return unknownHistory(m)
	}
	middle := p.helper(leader, p.freePid(), m.common)
	s.by = middle.pid
	p.born(middle, m, s)
	p.do(step{kind: stepEnd, pid: middle.pid, by: leader.pid})
	delete(p.byPid, middle.pid)
	return nil
}

// reaper is who adopts the children of a child of m at the end of that.
func (p *planner) reaper(m *member) *member {
	for m.pid != initPid && (m.node == nil || !m.node.ChildSubreaper) {
		m = m.parent
	}
	return m
}

// freePid is an id that the image does not need for a process.
func (p *planner) freePid() int {
	pid := initPid + 1
	for p.used[pid] {
		pid++
	}
	return pid
}

// groups puts the processes into their process groups, those last that lead
// one in which they are no longer.
func (p *planner) groups() error {
	for _, m := range p.members {
		if g := int(m.node.ProcessGroup); g != 0 && g != m.group {
			if err := p.found(m, g); err != nil {
				return err
			}
		}
	}
	todo := slices.Clone(p.members)
	for len(todo) > 0 {
		left := todo[:0]
		moved := false
		for _, m := range todo {
			g := int(m.node.ProcessGroup)
			if g == m.group {
				continue
			}
			if g == 0 || m.session == m.pid {
				return &refusal{fmt.Sprintf("process %d", m.pid), fmt.Sprintf("it is in process group %d and cannot get there from group %d", g, m.group), ""}
			}
			if p.awaited(m) {
				left = append(left, m)
				continue
			}
			p.enter(m, g)
			moved = true
		}
		if !moved && len(left) > 0 {
			m := left[0]
			return &refusal{fmt.Sprintf("process %d", m.pid), fmt.Sprintf("it is in process group %d, whose leader waits for it in turn", m.node.ProcessGroup), ""}
		}
		todo = left
	}
	return nil
}

// awaited: m leads a group that others are still to enter.
func (p *planner) awaited(m *member) bool {
	return slices.ContainsFunc(p.members, func(o *member) bool {
		return o != m && int(o.node.ProcessGroup) == m.pid && o.group != m.pid
	})
}

func (p *planner) enter(m *member, group int) {
	p.do(step{kind: stepGroup, pid: m.pid, group: group})
	m.group = group
}

// found makes sure that a group exists in the session of m.
func (p *planner) found(m *member, group int) error {
	leader := p.byPid[group]
	if leader == nil {
		maker := m
		if l := p.byPid[m.session]; l != nil {
			maker = l
		}
		leader = p.helper(maker, group, target.Common{})
		p.helpers = append(p.helpers, leader)
	}
	if leader.session != m.session {
		return fmt.Errorf("%w: process %d is in group %d of another session", errImage, m.pid, group)
	}
	if leader.group != group {
		p.enter(leader, group)
	}
	return nil
}
