// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// A move makes processes at the destination while the container runs, so that
// their memory can be copied ahead: those that execute a program of their own, as
// do all between them and the init. One that is a mere fork shares pages with
// its parent, which are found when both are stopped, and is made then.
//
// Each early tree replaces the one before; the last tree, of the stopped
// container, says which of the processes stay. Whatever has changed about a
// process's place in the tree, it is made anew then, with all below it.

// exportEarly sends the tree as it is now, if it has changed.
func (s *Subsystem) exportEarly(ctx context.Context, out record.Sink) error {
	if s.env.Source.Paused() {
		return nil
	}
	if err := s.env.Source.LookForSharers(); err != nil {
		return fmt.Errorf("task: %w", err)
	}
	processes, nodes := s.earlyTree()
	if len(nodes) == 0 || s.wasSent(nodes) {
		return nil
	}
	s.decideAhead(processes, nodes, nil)
	if _, err := plan(nodes, nil, nil, int(nodes[0].Session), int(nodes[0].ProcessGroup)); err != nil {
		return nil // not a tree that could be: it was changing, or never could
	}
	used, err := usedAddresses(processes)
	if err != nil {
		return nil // one of them has ended: next time
	}
	if err := pushTree(ctx, out, &state.Tree{Node: nodes, Used: used, Early: true}); err != nil {
		return err
	}
	s.sent = map[uint32]*state.Node{}
	for i, n := range nodes {
		s.sent[n.Id] = n
		if !n.Ahead && i > 0 {
			processes[i].Incarnation++
		}
		processes[i].Ahead = true
	}
	return nil
}

// earlyTree describes the processes that are made ahead, parents first.
func (s *Subsystem) earlyTree() ([]*target.Process, []*state.Node) {
	inside, chosen := map[int]int{}, map[int]bool{}
	marks := map[int]uint64{}
	var processes []*target.Process
	var nodes []*state.Node
	all := s.env.Source.Processes()
	for _, p := range all {
		if st, err := p.Proc.Status(); err == nil && len(st.NStgid) > 0 && st.HasMM {
			inside[p.Group] = int(last(st.NStgid))
		}
	}
	// Parents have lower ids, but where a process was adopted by a later one.
	for _, p := range all {
		n, mark, parent, err := describeRunning(p, inside)
		if errors.Is(err, errTerminal) {
			return nil, nil
		}
		if err != nil || p.ID != target.FirstTask && (!chosen[parent] || marks[parent] == mark || p.Lodger()) {
			continue
		}
		chosen[p.Group], marks[p.Group] = true, mark
		processes, nodes = append(processes, p), append(nodes, n)
	}
	if len(nodes) == 0 || nodes[0].Id != uint32(target.FirstTask) {
		return nil, nil
	}
	loose := rooted(nodes, func(*state.Node) bool { return true })
	nodes = slices.DeleteFunc(nodes, func(n *state.Node) bool { return slices.Contains(loose, n) })
	processes = slices.DeleteFunc(processes, func(p *target.Process) bool {
		return slices.ContainsFunc(loose, func(n *state.Node) bool { return n.Id == uint32(p.ID) })
	})
	return processes, nodes
}

// describeRunning is the node of a running process, a mark by which a fork is
// told from a program of its own (the random top of its stack), and its parent as
// the host sees it.
func describeRunning(p *target.Process, inside map[int]int) (n *state.Node, mark uint64, parent int, err error) {
	if inside[p.Group] == 0 {
		return nil, 0, 0, target.ErrNotStopped
	}
	if n, err = describeNode(p.Leader(), inside); err != nil {
		return nil, 0, 0, err
	}
	st, err := p.Proc.Stat()
	if err != nil {
		return nil, 0, 0, err
	}
	if st.TTYNr != 0 {
		return nil, 0, 0, errTerminal
	}
	n.Id = uint32(p.ID)
	return n, st.StartStack, st.PPid, nil
}

// errTerminal: the process has a controlling terminal. Those are made before all
// processes but the first, by the last tree.
var errTerminal = errors.New("it has a controlling terminal")

// wasSent: the destination has exactly this tree.
func (s *Subsystem) wasSent(nodes []*state.Node) bool {
	return len(nodes) == len(s.sent) && !slices.ContainsFunc(nodes, func(n *state.Node) bool { return !sameNode(n, s.sent[n.Id]) })
}

// sameNode compares what a process cannot change afterwards at the destination.
func sameNode(a, b *state.Node) bool {
	if a == nil || b == nil {
		return false
	}
	a, b = proto.Clone(a).(*state.Node), proto.Clone(b).(*state.Node)
	for _, n := range []*state.Node{a, b} {
		n.Ahead, n.ChildSubreaper, n.Stopped, n.StopUnreported = false, false, false, false // come in the end
	}
	return proto.Equal(a, b)
}

// decideAhead marks the processes that the destination has and keeps.
func (s *Subsystem) decideAhead(processes []*target.Process, nodes []*state.Node, shared []*state.SharedParts) {
	markAhead(nodes, shared, s.sent)
	ahead := map[uint32]bool{uint32(target.FirstTask): true}
	for _, n := range nodes {
		if n.Ahead {
			ahead[n.Id] = true
		}
	}
	for _, p := range processes {
		p.Ahead = ahead[uint32(p.ID)]
	}
	if len(s.sent) > 0 {
		note := fmt.Sprintf("%d of %d processes were made ahead", len(ahead), len(processes))
		s.note.Store(&note)
	}
}

// markAhead marks the nodes, parents first, that are in this tree what they were
// in the one that was sent. What has something in common with another process has to
// be made by it.
func markAhead(nodes []*state.Node, shared []*state.SharedParts, sent map[uint32]*state.Node) {
	if len(nodes) == 0 {
		return
	}
	made := map[int32]bool{}
	for _, x := range shared {
		made[x.Pid] = true
	}
	for _, n := range nodes[1:] {
		n.Ahead = !dead(n) && !made[n.Pid] && sameNode(n, sent[n.Id])
	}
	for _, n := range rooted(nodes, func(n *state.Node) bool { return n.Ahead }) {
		n.Ahead = false
	}
	if _, err := plan(nodes, shared, nil, int(nodes[0].Session), int(nodes[0].ProcessGroup)); err != nil {
		for _, n := range nodes {
			n.Ahead = false
		}
	}
}

// rooted returns the nodes among those that in selects, beside the init, which
// have a parent, a session's or a group's leader that is not: the ids of leaders
// that are gone cannot be taken again while somebody is in what they led.
func rooted(nodes []*state.Node, in func(*state.Node) bool) (loose []*state.Node) {
	has := map[int32]bool{0: true, nodes[0].Pid: true}
	for _, n := range nodes[1:] {
		has[n.Pid] = in(n)
	}
	for more := true; more; {
		more = false
		for _, n := range nodes[1:] {
			if has[n.Pid] && !(n.Parent != 0 && has[n.Parent] && has[n.Session] && has[n.ProcessGroup]) {
				has[n.Pid], more = false, true
				loose = append(loose, n)
			}
		}
	}
	return loose
}

// endAbsent ends the processes that an earlier tree has made and this one does
// not keep, children first.
func (s *Subsystem) endAbsent() error {
	keep := map[record.ProcessID]bool{target.FirstTask: true}
	for _, n := range s.tree {
		if !n.Ahead {
			continue
		}
		t := s.env.Frame.Task(record.ProcessID(n.Id))
		if t == nil || t.Traced == nil || t.Traced.NSPid != int(n.Pid) {
			return fmt.Errorf("%w: process %d does not exist yet", errImage, n.Pid)
		}
		keep[t.ID] = true
	}
	tasks := s.env.Frame.Tasks()
	slices.Reverse(tasks)
	var errs []error
	for _, t := range tasks {
		if !keep[t.ID] {
			errs = append(errs, s.dismiss(t))
		}
	}
	return errors.Join(errs...)
}

// dismiss ends one process for good: its parent waits for it and forgets that it
// was told.
func (s *Subsystem) dismiss(t *target.Task) error {
	st, err := t.Proc.Stat()
	if err != nil {
		return err
	}
	pid := t.Traced.NSPid
	var parent *target.Task
	for _, o := range s.env.Frame.Tasks() {
		if o.Pid == st.PPid {
			parent = o
		}
	}
	if parent == nil {
		return fmt.Errorf("process %d has no parent among those of the image", pid)
	}
	s.env.Frame.Remove(t)
	delete(s.kept, t.ID)
	if err := t.End(0); err != nil {
		return err
	}
	if err := parent.Bury(pid); err != nil || st.ExitSignal == 0 {
		return err
	}
	return parent.Disregard(unix.Signal(st.ExitSignal))
}
