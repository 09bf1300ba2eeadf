// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// KindSharing is a state.Sharing, shared; its entity is the index of its first entry.
// A reader of an earlier version refuses it: it would make copies of what is one.
const KindSharing = 5

// sharedPerRecord keeps records small.
const sharedPerRecord = 4096

// describeSharing lists what processes have in common, but for what their nodes say.
func describeSharing(processes []*target.Process, nodes []*state.Node) []*state.SharedParts {
	byPid := map[int32]*state.Node{}
	for _, n := range nodes {
		byPid[n.Pid] = n
	}
	var out []*state.SharedParts
	for _, p := range processes {
		with, c, _ := p.Relation()
		if with == nil {
			continue
		}
		pid, other := int32(p.Traced.NSPid), int32(with.Traced.NSPid)
		n := byPid[pid]
		if !c.Memory && !c.Handlers && n.Parent == other {
			n.SharesDirectories, n.SharesTable = c.Directories, c.Table
			continue
		}
		out = append(out, &state.SharedParts{Pid: pid, With: other, Memory: c.Memory, Handlers: c.Handlers, Directories: c.Directories, Table: c.Table})
	}
	return out
}

// possible refuses what no history that is known has as its outcome, where processes
// have something in common.
func possible(nodes []*state.Node, shared []*state.SharedParts) error {
	if len(shared) == 0 {
		return nil
	}
	_, err := plan(nodes, shared, nil, int(nodes[0].Session), int(nodes[0].ProcessGroup))
	return err
}

// pushSharing sends the list, if there is one.
func pushSharing(ctx context.Context, out record.Sink, list []*state.SharedParts) error {
	for at := 0; at < len(list); at += sharedPerRecord {
		m := &state.Sharing{Shared: list[at:min(len(list), at+sharedPerRecord)]}
		if err := send(ctx, out, record.Header{Kind: KindSharing, Entity: uint64(at)}, m); err != nil {
			return err
		}
	}
	return nil
}

// receiveSharing takes a part of it. What it says is checked with the tree.
func (s *Subsystem) receiveSharing(in *record.Record) error {
	var m state.Sharing
	if err := proto.Unmarshal(in.Payload, &m); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
	}
	if in.Entity != uint64(len(s.shared)) || len(s.shared)+len(m.Shared) > maxNodes || s.grown && !s.early {
		return fmt.Errorf("%w: %s: %d entries at number %d", errImage, in.Header, len(m.Shared), len(s.shared))
	}
	s.shared = append(s.shared, m.Shared...)
	return nil
}

// share checks what processes have in common and notes it.
func (p *planner) share(list []*state.SharedParts) error {
	for _, x := range list {
		m, with := p.byPid[int(x.Pid)], p.byPid[int(x.With)]
		bad := func(what string) error { return fmt.Errorf("%w: process %d: %s", errImage, x.Pid, what) }
		common := target.Common{Memory: x.Memory, Handlers: x.Handlers, Directories: x.Directories, Table: x.Table}
		switch {
		case m == nil || m.parent == nil || dead(m.node):
			return bad("it has something in common with others, and is none that could be made so")
		case with == nil || with == m || dead(with.node):
			return bad(fmt.Sprintf("it has something in common with process %d, which is not there", x.With))
		case !common.Any() || common.Handlers && !common.Memory:
			return bad("it has nothing in common with another, or signal handlers and not memory")
		case m.partner != nil:
			return bad("it has something in common with two others")
		case m.kept:
			return bad("it exists already, and has something in common with another")
		}
		m.partner, m.common = with, common
	}
	for _, m := range p.members {
		p.lend(m)
	}
	return nil
}

// lend is for a process that has directories or the descriptor table in common with
// its grandparent: its parent has it, too, until it has made that process, and gives
// it up then (unshare(2)).
func (p *planner) lend(m *member) {
	between := m.parent
	if !m.byOther() || m.common.Memory || m.common.Handlers || between.kept || between.parent != m.partner {
		return
	}
	if between.partner != nil && between.partner != m.partner {
		return
	}
	lack := target.Common{Directories: m.common.Directories && !between.common.Directories, Table: m.common.Table && !between.common.Table}
	if slices.ContainsFunc(p.members, func(o *member) bool {
		return o.partner == between && (o.common.Directories && lack.Directories || o.common.Table && lack.Table)
	}) {
		return // it has what is its own in common with others
	}
	between.partner, m.partner = m.partner, between
	for _, c := range []*target.Common{&between.common, &between.lent} {
		c.Directories, c.Table = c.Directories || lack.Directories, c.Table || lack.Table
	}
}

// byOther: it is made by another process than its parent.
func (m *member) byOther() bool { return m.partner != nil && m.partner != m.parent }

// adoptSharer makes a process that has something in common with another one, which
// is not its parent or has left the session in which it could have made it. It reports
// false if that one is still to be made.
func (p *planner) adoptSharer(m *member) (bool, error) {
	maker := m.partner
	if !maker.made {
		return false, nil
	}
	if maker == m.parent || m.need != anySession && m.need != maker.session {
		return false, &refusal{fmt.Sprintf("process %d", m.pid), fmt.Sprintf("it shares its %s with process %d, which cannot have made it in its session", m.common, maker.pid), ""}
	}
	s := step{kind: stepFork, pid: m.pid, signal: int(m.node.ExitSignal), common: m.common}
	if maker.pid != initPid && maker.parent == m.parent && maker.node.ExitSignal == m.node.ExitSignal {
		s.by, s.sibling = maker.pid, true
		p.born(maker, m, s)
		return true, p.grow(m)
	}
	if p.reaper(maker) != m.parent {
		return false, &refusal{fmt.Sprintf("process %d", m.pid), fmt.Sprintf("it shares its %s with process %d, and how that came about is not known", m.common, maker.pid), ""}
	}
	if err := p.byMiddle(maker, m, s); err != nil {
		return false, err
	}
	return true, p.grow(m)
}
