// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// nodesPerRecord keeps the parts of a tree small.
const nodesPerRecord = 4096

// exportTree pushes the container's processes as a whole: those that are
// stopped, and the dead that their parents have not waited for.
func (s *Subsystem) exportTree(ctx context.Context, out record.Sink) error {
	processes := s.env.Source.Processes()
	if err := s.refuseShared(processes); err != nil {
		return err
	}
	nodes, err := describeTree(processes)
	if err != nil {
		return err
	}
	shared := describeSharing(processes, nodes)
	if err := possible(nodes, shared); err != nil {
		return err
	}
	terminals, err := s.exportTerminals(processes, nodes)
	if err != nil {
		return err
	}
	used, err := usedAddresses(processes)
	if err != nil {
		return err
	}
	if len(terminals) > 0 {
		s.sent = nil // terminals are made before all processes but the first
	}
	s.decideAhead(processes, nodes, shared)
	if err := pushSharing(ctx, out, shared); err != nil {
		return err
	}
	return pushTree(ctx, out, &state.Tree{Node: nodes, Used: used, Terminal: terminals})
}

// pushTree sends a whole tree in parts.
func pushTree(ctx context.Context, out record.Sink, whole *state.Tree) error {
	nodes, m := whole.Node, whole
	m.Nodes = uint32(len(nodes))
	for at := 0; len(nodes) > 0; {
		n := min(len(nodes), nodesPerRecord)
		m.Node = nodes[:n]
		if err := send(ctx, out, record.Header{Kind: KindTree, Entity: uint64(at)}, m); err != nil {
			return err
		}
		nodes, at = nodes[n:], at+n
		m = &state.Tree{Nodes: m.Nodes}
	}
	return nil
}

// describeTree lists the tree's nodes, parents first.
func describeTree(processes []*target.Process) ([]*state.Node, error) {
	inside := map[int]int{} // the container's pids by the host's
	for _, p := range processes {
		if p.Traced == nil {
			return nil, fmt.Errorf("process %d: %w", p.ID, target.ErrNotStopped)
		}
		inside[p.Group] = p.Traced.NSPid
	}
	nodes, dead := make([]*state.Node, len(processes)), make([][]*state.Node, len(processes))
	if err := describeEach(processes, inside, nodes, dead); err != nil {
		return nil, err
	}
	if err := findUnreported(processes, nodes); err != nil {
		return nil, err
	}
	return sortNodes(append(nodes, slices.Concat(dead...)...)), nil
}

// describeEach reads the processes' nodes and those of their dead children, side by
// side if there are several, each in one visit to the thread that traces it.
func describeEach(processes []*target.Process, inside map[int]int, nodes []*state.Node, dead [][]*state.Node) error {
	one := func(i int) error {
		p := processes[i]
		return p.Traced.Do(func() (err error) {
			if nodes[i], err = describeProcess(p, inside); err != nil {
				return fmt.Errorf("pid %d: %w", p.Pid, err)
			}
			dead[i], err = zombies(p, inside)
			return err
		})
	}
	if len(processes) == 1 {
		return one(0)
	}
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i := range processes {
		g.Go(func() error { return one(i) })
	}
	described := make(chan error, 1)
	go func() { described <- g.Wait() }()
	return tracer.WaitFor(described) // they ask the processes
}

// describeProcess reads what belongs to the node of a stopped process.
func describeProcess(p *target.Process, inside map[int]int) (*state.Node, error) {
	n, err := describeNode(p.Leader(), inside)
	if err != nil {
		return nil, err
	}
	n.Id = uint32(p.ID)
	if n.Stopped, err = stopped(p); err != nil {
		return nil, err
	}
	n.ChildSubreaper, err = adoptsOrphans(p)
	return n, err
}

// adoptsOrphans asks the process itself, as nobody else is told.
func adoptsOrphans(p *target.Process) (bool, error) {
	a, err := p.AskLeader(aboutProcess)
	if err != nil {
		return false, err
	}
	return a.Memory[8] != 0, nil
}

// describeNode reads what /proc shows of a process, dead or alive.
func describeNode(proc procfs.Task, inside map[int]int) (*state.Node, error) {
	st, err := proc.Status()
	if err != nil {
		return nil, err
	}
	stat, err := proc.Stat()
	if err != nil {
		return nil, err
	}
	return &state.Node{
		Pid: last(st.NSpid), Parent: int32(inside[st.PPid]), ProcessGroup: last(st.NSpgid), Session: last(st.NSsid),
		ExitSignal: int32(stat.ExitSignal),
	}, nil
}

// last is an id in the innermost pid namespace.
func last(list []int) int32 {
	if len(list) == 0 {
		return 0
	}
	return int32(list[len(list)-1])
}

// aboutChildren is whether the process has any, which the leader is told at once:
// /proc shows those of each thread by itself. It takes the status of none.
var aboutChildren = &target.Question{
	Process: true,
	Calls: func(uint64) []tracer.Call {
		const all, options = 0, unix.WEXITED | unix.WNOHANG | unix.WNOWAIT | unix.WALL
		return []tracer.Call{tracer.Syscall(unix.SYS_WAITID, all, 0, 0, options, 0)}
	},
}

// childless: no thread of the process has a child, dead or alive.
func childless(p *target.Process) (bool, error) {
	a, err := p.Ask(aboutChildren)
	if err != nil || len(a) == 0 {
		return false, err
	}
	return errors.Is(a[0].Calls[0].Errno(), unix.ECHILD), nil
}

// zombies are the children of a stopped process that have ended. Any other
// child that is not held is outside of the container's cgroup.
func zombies(p *target.Process, inside map[int]int) ([]*state.Node, error) {
	if none, err := childless(p); err != nil || none {
		return nil, err
	}
	var out []*state.Node
	for _, th := range p.Traced.Threads() {
		children, err := p.Proc.Thread(th.Tid).Children()
		if err != nil {
			return nil, fmt.Errorf("list the children of pid %d (the kernel needs CONFIG_PROC_CHILDREN): %w", p.Pid, err)
		}
		for _, pid := range children {
			if inside[pid] != 0 {
				continue
			}
			n, err := zombie(pid, inside)
			if err != nil {
				return nil, fmt.Errorf("child %d of pid %d: %w", pid, p.Pid, err)
			}
			out = append(out, n)
		}
	}
	return out, nil
}

func zombie(pid int, inside map[int]int) (*state.Node, error) {
	proc := procfs.Host().Process(pid)
	stat, err := proc.Stat()
	if err != nil {
		return nil, err
	}
	if stat.State != 'Z' {
		return nil, &refusal{"process " + stat.Comm, "it is not in the container's cgroup, or not in its pid namespace", ""}
	}
	n, err := describeNode(proc, inside)
	if err != nil {
		return nil, err
	}
	n.ExitStatus, n.Comm = int32(stat.ExitCode), []byte(stat.Comm)
	st, err := proc.Status()
	if err != nil {
		return nil, err
	}
	n.Uid, n.Gid, err = target.Owner(proc, &unix.Stat_t{Uid: uint32(st.UID.Real), Gid: uint32(st.GID.Real)})
	return n, err
}

// sortNodes puts parents before their children, and the init first.
func sortNodes(nodes []*state.Node) []*state.Node {
	byPid := map[int32]*state.Node{}
	for _, n := range nodes {
		byPid[n.Pid] = n
	}
	done := map[*state.Node]bool{}
	out := make([]*state.Node, 0, len(nodes))
	var add func(*state.Node)
	add = func(n *state.Node) {
		if n == nil || done[n] {
			return
		}
		done[n] = true
		add(byPid[n.Parent])
		out = append(out, n)
	}
	for _, n := range nodes {
		add(n)
	}
	return out
}

// joinGap: used addresses that are closer to each other are joined, so that
// few ranges tell them all. The engine's memory needs a hole larger than that.
const joinGap = 1 << 30

// usedAddresses are those of all processes together.
func usedAddresses(processes []*target.Process) ([]*state.AddressRange, error) {
	var all []*state.AddressRange
	for _, p := range processes {
		maps, err := p.Proc.Maps()
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", p.Pid, err)
		}
		var mine []tracer.Range
		if p.Traced != nil {
			mine = p.Traced.ScratchRanges()
		}
		for _, m := range maps {
			ours := m.Kind == procfs.MapVSyscall
			for _, r := range mine {
				ours = ours || m.Start >= r.Start && m.End <= r.End
			}
			if !ours {
				all = append(all, &state.AddressRange{Start: m.Start, Length: m.Len()})
			}
		}
	}
	slices.SortFunc(all, func(a, b *state.AddressRange) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	var out []*state.AddressRange
	for _, r := range all {
		if n := len(out); n > 0 && r.Start < out[n-1].Start+out[n-1].Length+joinGap {
			out[n-1].Length = max(out[n-1].Length, r.Start+r.Length-out[n-1].Start)
			continue
		}
		out = append(out, r)
	}
	return out, nil
}
