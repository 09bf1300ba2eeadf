// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"slices"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// Common is what a process has in common with another one, that a fork copies:
// clone(2) with CLONE_VM, CLONE_SIGHAND, CLONE_FS, CLONE_FILES.
type Common struct {
	Memory, Handlers, Directories, Table bool
}

// shareable are the resources of Common, in its order.
var shareable = [...]Resource{ResourceVM, ResourceSighand, ResourceFS, ResourceFiles}

// Any reports whether there is anything.
func (c Common) Any() bool { return c != Common{} }

// String says what it is.
func (c Common) String() string {
	var out string
	for i, has := range c.list() {
		if !has {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += [...]string{"memory", "signal handlers", "working directory", "descriptor table"}[i]
	}
	return out
}

func (c Common) list() [len(shareable)]bool {
	return [...]bool{c.Memory, c.Handlers, c.Directories, c.Table}
}

// Kin is a process as Relate looks at it: the task by which the kernel shows what it
// has (Living), its id and its parent's.
type Kin struct{ Task, Pid, Parent int }

// Relation says with which process another one has something in common. One process
// makes the other in a copy of the container, so it has to be one for all.
type Relation struct {
	// With is the index of that process, which comes before; -1 if there is nothing.
	With int
	Common
	// Torn: nothing that is shared is shared with one process alone.
	Torn bool
}

// Relate finds out what processes have in common, by kcmp(2). Of those that have the
// same, each is related to one that comes before: to its parent rather than a sibling,
// and to a sibling rather than anybody else. A task that ends makes it fail (ESRCH).
func Relate(list []Kin) ([]Relation, error) {
	out := make([]Relation, len(list))
	for i := range out {
		out[i].With = -1
	}
	if len(list) < 2 {
		return out, nil
	}
	classes := make([]Parts, len(list))
	for r, res := range shareable {
		ids := identities{next: uint64(r) << 32}
		for i, k := range list {
			id, _, err := ids.id(res, "", k.Task, 0)
			if err != nil {
				return nil, err
			}
			classes[i][r] = id
		}
	}
	return RelateBy(list, classes), nil
}

// Parts names the four things that Common is about: of two processes that have one in
// common it is the same number, and no other thing has that.
type Parts [len(shareable)]uint64

// RelateBy is Relate for processes of which it is known what they have.
func RelateBy(list []Kin, parts []Parts) []Relation {
	out := make([]Relation, len(list))
	members := map[uint64][]int{} // of each part, in order
	for i := range list {
		out[i].With = -1
		for _, id := range parts[i] {
			members[id] = append(members[id], i)
		}
	}
	for i := range list {
		relateOne(list, parts, members, i, &out[i])
	}
	return out
}

// relateOne chooses the process to which one is related.
func relateOne(list []Kin, classes []Parts, members map[uint64][]int, i int, rel *Relation) {
	var has [len(shareable)]bool
	smallest := []int(nil)
	for r := range shareable {
		class := members[classes[i][r]]
		if has[r] = class[0] < i; has[r] && (smallest == nil || len(class) < len(smallest)) {
			smallest = class
		}
	}
	if rel.Common = (Common{has[0], has[1], has[2], has[3]}); !rel.Any() {
		return
	}
	best := 0
	for _, o := range smallest {
		if o >= i {
			break
		}
		if slices.ContainsFunc([]int{0, 1, 2, 3}, func(r int) bool { return has[r] && classes[o][r] != classes[i][r] }) {
			continue
		}
		near := 1
		switch {
		case list[o].Pid == list[i].Parent:
			near = 3
		case list[o].Parent == list[i].Parent:
			near = 2
		}
		if near > best {
			rel.With, best = o, near
		}
		if near == 3 {
			break
		}
	}
	rel.Torn = rel.With < 0
}

// relation is what a stopped process has in common with another one.
type relation struct {
	with   *Process // nil: nothing
	common Common
	torn   bool
	// first is the one that stands for the address space: the process itself, or the
	// first of those that have it in common. household are all of these, nil if
	// there is only one.
	first     *Process
	household *household
}

// household is the processes that have one address space.
type household struct {
	space   tracer.Space
	members []*Process
	// leaving is held while they are made ready to run on.
	leaving  chan struct{}
	withdrew bool
}

// relate finds out what the stopped processes have in common, parents first.
func (s *Source) relate(list []*Process) error {
	kin := make([]Kin, len(list))
	for i, p := range list {
		p.relation = relation{first: p}
		if len(list) == 1 {
			return nil
		}
		st, err := p.Leader().Status()
		if err != nil {
			return err
		}
		kin[i] = Kin{p.Pid, p.Group, st.PPid}
	}
	found, err := Relate(kin)
	if err != nil {
		return err
	}
	for i, rel := range found {
		p := list[i]
		p.relation.common, p.relation.torn = rel.Common, rel.Torn
		if rel.With < 0 {
			continue
		}
		p.relation.with = list[rel.With]
		if !rel.Memory {
			continue
		}
		if err := p.moveIn(p.relation.with.relation.first); err != nil {
			return fmt.Errorf("pid %d: %w", p.Pid, err)
		}
	}
	return nil
}

// moveIn notes that the address space is that of another process.
func (p *Process) moveIn(first *Process) error {
	h := first.relation.household
	if h == nil {
		h = &household{members: []*Process{first}, leaving: make(chan struct{}, 1)}
		if err := first.Traced.Join(&h.space); err != nil {
			return err
		}
		first.relation.household = h
	}
	h.members = append(h.members, p)
	p.relation.first, p.relation.household = first, h
	return p.Traced.Join(&h.space)
}

// Relation names what a stopped process has in common with another one, which comes
// before it; nil if nothing. torn: it has something in common with several, none of
// which has all of it.
func (p *Process) Relation() (with *Process, common Common, torn bool) {
	return p.relation.with, p.relation.common, p.relation.torn
}

// Space is the process that stands for the address space of a stopped process: itself,
// or one that comes before.
func (p *Process) Space() *Process {
	if p.relation.first == nil {
		return p
	}
	return p.relation.first
}

// SharesMemory reports whether a stopped process has its memory in common with any
// other, before or behind it.
func (p *Process) SharesMemory() bool { return p.relation.household != nil }

// clearHousehold takes the engine's memory out of all processes that have the address
// space, before the first of them runs on.
func (p *Process) clearHousehold() error {
	h := p.relation.household
	if h == nil {
		return nil
	}
	h.leaving <- struct{}{}
	defer func() { <-h.leaving }()
	if h.withdrew {
		return nil
	}
	h.withdrew = true
	var first error
	for _, o := range h.members {
		if o.Traced == nil {
			continue
		}
		if err := o.withdraw(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// LookForSharers notes which processes have their memory in common with others, while
// they run. Those are not copied ahead.
func (s *Source) LookForSharers() error {
	list := s.Processes()
	if len(list) < 2 {
		return nil
	}
	spaces := identities{}
	first := map[uint64]*Process{}
	for _, p := range list {
		p.crowded.Store(false)
		p.lodger.Store(false)
		id, fresh, err := spaces.id(ResourceVM, "", p.Pid, 0)
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if fresh {
			first[id] = p
			continue
		}
		p.crowded.Store(true)
		p.lodger.Store(true)
		first[id].crowded.Store(true)
	}
	return nil
}

// Crowded reports what LookForSharers has found: the process has its memory in common
// with another one.
func (p *Process) Crowded() bool { return p.crowded.Load() }

// Lodger reports that the process is Crowded, and another one comes before it.
func (p *Process) Lodger() bool { return p.lodger.Load() }
