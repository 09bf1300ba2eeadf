// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// share lets n things happen to what processes have in common, among all else.
func (w *world) share(r *rand.Rand, n int) {
	for range n {
		var pids []int
		for pid, p := range w.all {
			if !p.dead {
				pids = append(pids, pid)
			}
		}
		slices.Sort(pids)
		pid := pids[r.IntN(len(pids))]
		switch r.IntN(8) {
		case 0, 1, 2:
			c := target.Common{Memory: r.IntN(2) == 0, Directories: r.IntN(2) == 0, Table: r.IntN(2) == 0}
			c.Handlers = c.Memory && r.IntN(2) == 0
			_ = w.clone(pid, w.next, 17, r.IntN(3) == 0, c)
			w.next++
		case 3: // execve(2)
			if r.IntN(4) == 0 {
				w.part(pid, 0)
				w.part(pid, 1)
				w.part(pid, 3)
			}
		case 4: // unshare(2)
			w.part(pid, 2+r.IntN(2))
		default:
			w.live(r, 1)
		}
	}
}

// shared is what an export says of what processes have in common; torn: one that it
// refuses.
func (w *world) shared(nodes []*state.Node) (list []*state.SharedParts, torn bool) {
	var kin []target.Kin
	var parts []target.Parts
	for _, n := range nodes {
		if !dead(n) {
			kin = append(kin, target.Kin{Pid: int(n.Pid), Parent: int(n.Parent)})
			parts = append(parts, w.all[int(n.Pid)].parts)
		}
	}
	for i, rel := range target.RelateBy(kin, parts) {
		if torn = torn || rel.Torn; rel.With < 0 {
			continue
		}
		list = append(list, &state.SharedParts{
			Pid: int32(kin[i].Pid), With: int32(kin[rel.With].Pid),
			Memory: rel.Memory, Handlers: rel.Handlers, Directories: rel.Directories, Table: rel.Table,
		})
	}
	return list, torn
}

// households tells who has what in common: of each part the first who has it.
func (w *world) households() (s string) {
	var pids []int
	for pid, p := range w.all {
		if !p.dead {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	first := map[uint64]int{}
	for _, pid := range pids {
		s += fmt.Sprintf("pid %d:", pid)
		for _, part := range w.all[pid].parts {
			if first[part] == 0 {
				first[part] = pid
			}
			s += fmt.Sprintf(" %d", first[part])
		}
		s += "\n"
	}
	return s
}

// TestPlanOfSharers: whatever processes have done, those that have something in common
// have it in the tree that the plan leads to, and no others; or it is refused by name.
func TestPlanOfSharers(t *testing.T) {
	refused, apart, total, some := 0, 0, 5000, 0
	for seed := range uint64(total) {
		r := rand.New(rand.NewPCG(seed, 3))
		w := newWorld()
		w.share(r, 4+r.IntN(30))
		nodes := w.nodes()
		shared, torn := w.shared(nodes)
		if torn {
			apart++
			continue
		}
		steps, err := plan(nodes, shared, nil, 1, 1)
		var no *refusal
		if errors.As(err, &no) {
			refused++
			continue
		}
		if err != nil {
			t.Fatalf("%v\n%s%s", err, show(nodes), w.households())
		}
		if len(shared) > 0 {
			some++
		}
		copied := newWorld()
		copied.play(t, steps)
		if got, want := show(copied.nodes())+copied.households(), show(nodes)+w.households(); got != want {
			t.Fatalf("plan %+v of %v\nleads to\n%sinstead of\n%s", steps, shared, got, want)
		}
	}
	t.Logf("of %d histories %d are refused and %d have no single maker; %d of the rest have something in common", total, refused, apart, some)
	if refused > total/4 || some < total/2 {
		t.Errorf("%d of %d histories are refused, %d have something in common", refused, total, some)
	}
}

// TestPlanRefusesForgedSharers: what cannot be, and what would never end.
func TestPlanRefusesForgedSharers(t *testing.T) {
	tree := func() []*state.Node {
		node := func(pid, parent int32) *state.Node {
			return &state.Node{Id: uint32(pid), Pid: pid, Parent: parent, ProcessGroup: 1, Session: 1, ExitSignal: 17}
		}
		list := []*state.Node{node(1, 0), node(2, 1), node(3, 1), node(4, 3), node(5, 1)}
		list[4].Id = 0
		return list
	}
	memory := func(pid, with int32) *state.SharedParts {
		return &state.SharedParts{Pid: pid, With: with, Memory: true}
	}
	for name, list := range map[string][]*state.SharedParts{
		"the init":           {memory(1, 2)},
		"itself":             {memory(2, 2)},
		"nobody":             {memory(2, 9)},
		"who is nobody":      {memory(9, 2)},
		"a dead one":         {memory(2, 5)},
		"who is dead":        {memory(5, 2)},
		"nothing":            {{Pid: 2, With: 3}},
		"handlers alone":     {{Pid: 2, With: 3, Handlers: true}},
		"two":                {memory(2, 1), memory(2, 3)},
		"a circle":           {memory(2, 3), memory(3, 2)},
		"its own child":      {memory(3, 4)},
		"a child's circle":   {memory(4, 2), memory(2, 4)},
		"negative":           {memory(-1, 2)},
		"a child of another": {memory(4, 1)},
	} {
		if steps, err := plan(tree(), list, nil, 1, 1); err == nil {
			t.Errorf("%s: accepted as %+v", name, steps)
		}
	}
	kept := tree()
	kept[1].Ahead = true
	if _, err := plan(kept, []*state.SharedParts{memory(2, 1)}, nil, 1, 1); !errors.Is(err, errImage) {
		t.Errorf("one that exists already: %v", err)
	}
	twice := tree()
	twice[1].SharesTable = true
	if _, err := plan(twice, []*state.SharedParts{memory(2, 1)}, nil, 1, 1); !errors.Is(err, errImage) {
		t.Errorf("one whose node says so, too: %v", err)
	}
	if _, err := plan(tree(), []*state.SharedParts{memory(2, 1), memory(3, 2), memory(4, 3)}, nil, 1, 1); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// FuzzPlan: whatever a tree and a list of what is shared say, there is an error or a
// plan, soon, that makes each process once.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 5))
		w := newWorld()
		w.share(r, 4+r.IntN(20))
		nodes := w.nodes()
		if shared, torn := w.shared(nodes); !torn {
			f.Add(pack(f, &state.Tree{Node: nodes}), pack(f, &state.Sharing{Shared: shared}))
		}
	}
	f.Fuzz(func(t *testing.T, tree, sharing []byte) {
		var m state.Tree
		var list state.Sharing
		if proto.Unmarshal(tree, &m) != nil || proto.Unmarshal(sharing, &list) != nil || len(m.Node) == 0 || len(m.Node) > 200 {
			return
		}
		begun := time.Now()
		steps, err := plan(m.Node, list.Shared, nil, 1, 1)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%d processes take %v", len(m.Node), took)
		}
		if err != nil {
			return
		}
		made := map[int]int{}
		for _, s := range steps {
			if s.kind == stepFork {
				made[s.pid]++
			}
		}
		for i, n := range m.Node {
			if want := min(i, 1); made[int(n.Pid)] != want && !n.Ahead {
				t.Errorf("process %d is made %d times", n.Pid, made[int(n.Pid)])
			}
		}
	})
}
