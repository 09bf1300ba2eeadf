// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// maxNodes bounds the processes of an image.
const maxNodes = 1 << 20

// receiveTree takes a part of the tree; with the last one the processes are
// made, since the records that follow are theirs.
func (s *Subsystem) receiveTree(in *record.Record) error {
	var m state.Tree
	if err := proto.Unmarshal(in.Payload, &m); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
	}
	if s.grown && s.early && in.Entity == 0 {
		s.tree, s.terminals, s.grown = nil, nil, false // this one replaces it
	}
	if s.grown || m.Nodes == 0 || m.Nodes > maxNodes || in.Entity != uint64(len(s.tree)) || len(s.tree)+len(m.Node) > int(m.Nodes) {
		return fmt.Errorf("%w: %s: %d of %d processes at number %d", errImage, in.Header, len(m.Node), m.Nodes, len(s.tree))
	}
	first := s.env.Frame.Task(target.FirstTask)
	if first == nil || first.Traced == nil {
		return fmt.Errorf("task: %w", target.ErrNotStopped)
	}
	for _, r := range m.Used {
		if r.Start+r.Length < r.Start {
			return fmt.Errorf("%w: %s: addresses", errImage, in.Header)
		}
		if err := first.Traced.Avoid(tracer.Range{Start: r.Start, End: r.Start + r.Length}); err != nil {
			return fmt.Errorf("%s: %w", in.Header, err)
		}
	}
	if err := s.addTerminals(&m); err != nil {
		return fmt.Errorf("%s: %w", in.Header, err)
	}
	if in.Entity == 0 {
		s.early = m.Early
	}
	s.tree = append(s.tree, m.Node...)
	if len(s.tree) < int(m.Nodes) {
		return nil
	}
	s.grown = true
	if err := s.endAbsent(); err != nil {
		return fmt.Errorf("end what an earlier tree has made: %w", err)
	}
	g, err := s.planGrowth(first)
	if err != nil {
		return fmt.Errorf("make the container's %d processes: %w", len(s.tree), err)
	}
	if s.early { // what is made ahead shares nothing with its maker
		return g.until(record.Shared)
	}
	s.env.Frame.GrowLater(g.until)
	return nil
}

// planGrowth finds out how to make the processes.
func (s *Subsystem) planGrowth(first *target.Task) (*grower, error) {
	if err := s.makeTerminals(); err != nil {
		return nil, err
	}
	st, err := first.Proc.Status()
	if err != nil {
		return nil, err
	}
	if s.tree[0].Id != uint32(target.FirstTask) {
		return nil, fmt.Errorf("%w: its first process is number %d", errImage, s.tree[0].Id)
	}
	ids := map[uint32]bool{}
	for _, n := range s.tree {
		if !dead(n) && ids[n.Id] {
			return nil, fmt.Errorf("%w: process %d: %w", errImage, n.Id, target.ErrTaken)
		}
		ids[n.Id] = true
	}
	steps, err := plan(s.tree, s.shared, s.terminals, int(last(st.NSsid)), int(last(st.NSpgid)))
	if err != nil {
		return nil, err
	}
	g := &grower{
		frame: s.env.Frame, steps: steps, ids: ids,
		tasks: map[int]*target.Task{initPid: first}, nodes: map[int]*state.Node{}, reap: map[int]bool{},
	}
	for _, n := range s.tree {
		g.nodes[int(n.Pid)] = n
		if n.Ahead {
			g.tasks[int(n.Pid)] = s.env.Frame.Task(record.ProcessID(n.Id))
		}
	}
	return g, nil
}

// until makes processes until that with an id exists; record.Shared stands for
// all. What the image does not have is nobody's.
func (g *grower) until(id record.ProcessID) error {
	if id != record.Shared && !g.ids[uint32(id)] {
		return nil
	}
	for len(g.steps) > 0 && (id == record.Shared || g.frame.Task(id) == nil) {
		if err := g.do(g.steps[0]); err != nil {
			return fmt.Errorf("make the container's processes: %w", err)
		}
		g.steps = g.steps[1:]
	}
	if id != record.Shared {
		return nil
	}
	for pid := range g.reap {
		if err := g.tasks[pid].Disregard(unix.SIGCHLD); err != nil {
			return err
		}
	}
	return nil
}

// grower follows a plan.
type grower struct {
	frame *target.Frame
	steps []step // that are left
	ids   map[uint32]bool
	tasks map[int]*target.Task
	nodes map[int]*state.Node
	reap  map[int]bool // that were sent SIGCHLD for the end of a zombie
}

func (g *grower) do(s step) error {
	t := g.tasks[s.pid]
	switch s.kind {
	case stepFork:
		child, err := g.tasks[s.by].Fork(target.Birth{Pid: s.pid, ExitSignal: s.signal, Sibling: s.sibling, Common: s.common})
		if err != nil {
			return err
		}
		g.tasks[s.pid] = child
		if n := g.nodes[s.pid]; n != nil && !dead(n) {
			return g.frame.Add(record.ProcessID(n.Id), child)
		}
		return nil
	case stepSession:
		return t.Run([]tracer.Call{tracer.Syscall(unix.SYS_SETSID)})
	case stepReaper:
		return t.Run([]tracer.Call{tracer.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1)})
	case stepGroup:
		err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_SETPGID, 0, uint64(s.group))})
		if err != nil {
			return fmt.Errorf("put process %d into process group %d: %w", s.pid, s.group, err)
		}
		return nil
	case stepTerminal, stepNoTerminal, stepForeground:
		return g.terminal(t, s)
	case stepEnd:
		if err := t.End(0); err != nil {
			return err
		}
		return g.tasks[s.by].Bury(s.pid)
	case stepPart:
		return t.Part(s.common)
	case stepZombie:
		return g.end(t, g.nodes[s.pid], s.by)
	}
	return fmt.Errorf("step %d is not known", s.kind)
}

// end makes a zombie.
func (g *grower) end(t *target.Task, n *state.Node, parent int) error {
	p := t.Plan()
	p.Call(tracer.Prctl(unix.PR_SET_NAME, p.PutString(string(n.Comm))))
	p.BecomeUser(n.Uid, n.Gid)
	if err := p.Run(); err != nil {
		return err
	}
	g.reap[parent] = true
	return t.End(int(n.ExitStatus) & 0xffff)
}
