// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Threads that have not all in common with their process: directories, a descriptor
// table, or both are their own, alone or with further such threads. What threads have
// in common was one thread's when it made the others, so in a copy they are made in
// such an order.

// KindGroups is a state.ThreadGroups; its entity is the index of its first entry. A
// reader of an earlier version refuses it.
const KindGroups = 6

// describeGroups lists a process's threads of this kind. An image with none but
// threads that have directories alone for themselves needs no list, and can be read
// by an earlier version.
func describeGroups(p *target.Process) ([]*state.ThreadGroup, error) {
	apart, err := p.Apart()
	if err != nil || len(apart) == 0 {
		return nil, err
	}
	ids := map[int]int32{}
	for _, th := range p.Traced.Threads() {
		ids[th.Tid] = int32(th.NSTid)
	}
	var out []*state.ThreadGroup
	needed := p.SharesDirectories()
	for _, a := range apart {
		needed = needed || a.Table != 0 || a.Directories != a.Tid
		out = append(out, &state.ThreadGroup{Tid: ids[a.Tid], Directories: ids[a.Directories], Table: ids[a.Table]})
	}
	if !needed {
		return nil, nil
	}
	return out, nil
}

// pushGroups sends the list, if there is one.
func pushGroups(ctx context.Context, p *target.Process, out record.Sink) error {
	list, err := describeGroups(p)
	if err != nil {
		return err
	}
	for at := 0; at < len(list); at += sharedPerRecord {
		m := &state.ThreadGroups{Thread: list[at:min(len(list), at+sharedPerRecord)]}
		if err := send(ctx, out, record.Header{Process: p.ID, Kind: KindGroups, Entity: uint64(at)}, m); err != nil {
			return err
		}
	}
	return nil
}

// addGroups takes a part of the list. What it says is checked by birthsOf.
func (k *saved) addGroups(in *record.Record) error {
	var m state.ThreadGroups
	if err := proto.Unmarshal(in.Payload, &m); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, in.Header, err)
	}
	if k.process == nil || in.Entity != uint64(len(k.groups)) || len(k.groups)+len(m.Thread) > int(k.process.Threads) {
		return fmt.Errorf("%w: %s: %d entries at number %d", errImage, in.Header, len(m.Thread), len(k.groups))
	}
	k.groups = append(k.groups, m.Thread...)
	return nil
}

// birth is how a thread is made.
type birth struct {
	tid int
	by  int // the thread that makes it; 0: the process's leader
	// what it has in common with that one
	directories, table bool
}

// has is which directories and which table a thread has, by the first thread that has
// them; 0 are the process's.
type has struct{ directories, table int }

// birthsOf plans in which order threads are made, and by whom: first those that have
// all in common with the process. leader is the id of the process.
func birthsOf(threads []*state.Thread, groups []*state.ThreadGroup, leader int) ([]birth, error) {
	apart, err := checkGroups(threads, groups, leader)
	if err != nil {
		return nil, err
	}
	var out []birth
	for _, th := range threads {
		if tid := int(th.Tid); tid != leader && apart[tid] == (has{}) {
			out = append(out, birth{tid: tid, directories: true, table: true})
		}
	}
	left := slices.Clone(groups)
	made := family{by: map[has]int{{}: 0}, directories: map[int]int{0: 0}, tables: map[int]int{0: 0}}
	for len(left) > 0 {
		i, b, err := made.next(left, apart)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
		made.add(b.tid, apart[b.tid])
		left = slices.Delete(left, i, i+1)
	}
	return out, nil
}

// checkGroups returns what each thread of the list has.
func checkGroups(threads []*state.Thread, groups []*state.ThreadGroup, leader int) (map[int]has, error) {
	exists, apart := map[int32]bool{}, map[int]has{}
	for _, th := range threads {
		exists[th.Tid] = true
	}
	for _, g := range groups {
		tid := int(g.Tid)
		h := has{int(g.Directories), int(g.Table)}
		if _, twice := apart[tid]; twice || !exists[g.Tid] || tid == leader || h == (has{}) {
			return nil, fmt.Errorf("%w: thread %d has directories or descriptors of its own: it is there twice, or is none that could", errImage, tid)
		}
		apart[tid] = h
	}
	for tid, h := range apart {
		if d := h.directories; d != 0 && apart[d].directories != d {
			return nil, fmt.Errorf("%w: thread %d has the directories of thread %d, which has others", errImage, tid, d)
		}
		if t := h.table; t != 0 && apart[t].table != t {
			return nil, fmt.Errorf("%w: thread %d has the descriptors of thread %d, which has others", errImage, tid, t)
		}
	}
	return apart, nil
}

// family is the threads that are made, each by one of its members.
type family struct {
	by                  map[has]int // exactly these two
	directories, tables map[int]int // either
}

func (f *family) add(tid int, h has) {
	for _, known := range []struct {
		m  map[int]int
		at int
	}{{f.directories, h.directories}, {f.tables, h.table}} {
		if _, ok := known.m[known.at]; !ok {
			known.m[known.at] = tid
		}
	}
	if _, ok := f.by[h]; !ok {
		f.by[h] = tid
	}
}

// next chooses one that can be made now: rather one that has something in common with
// those that exist, as it could not be made any more when both that it has do, and
// nobody has the two of them.
func (f *family) next(left []*state.ThreadGroup, apart map[int]has) (int, birth, error) {
	fresh := -1
	for i, g := range left {
		tid := int(g.Tid)
		h := apart[tid]
		if maker, ok := f.by[h]; ok {
			return i, birth{tid, maker, true, true}, nil
		}
		maker, directories := f.directories[h.directories]
		other, table := f.tables[h.table]
		switch {
		case directories && table:
			return 0, birth{}, &refusal{fmt.Sprintf("thread %d", tid), "it shares its working directory with one thread and its descriptor table with another, and how that came about is not known", ""}
		case directories:
			return i, birth{tid, maker, true, false}, nil
		case table:
			return i, birth{tid, other, false, true}, nil
		case fresh < 0:
			fresh = i
		}
	}
	return fresh, birth{tid: int(left[fresh].Tid)}, nil
}

// group is a process, by its task, with those of its threads that are apart.
type group struct {
	pid   int
	apart []target.Apart
}

// strays refuses directories and descriptor tables that threads of a process have for
// themselves and another process has, too: whoever makes it in a copy makes it of the
// process's. The thread is named besides.
func strays(list []group) (tid int, err error) {
	for _, r := range []target.Resource{target.ResourceFiles, target.ResourceFS} {
		seen, owner := target.NewSharers(r), map[int]int{}
		for _, g := range list {
			for _, a := range g.apart {
				if of(a, r) != a.Tid {
					continue
				}
				with, err := seen.Add(a.Tid)
				if err != nil {
					return 0, err
				}
				if with != 0 {
					return a.Tid, stray(a.Tid, owner[with], r)
				}
				owner[a.Tid] = g.pid
			}
		}
		if len(owner) == 0 {
			continue
		}
		for _, g := range list {
			if with, err := seen.Add(g.pid); err != nil {
				return 0, err
			} else if owner[with] != 0 {
				return with, stray(with, g.pid, r)
			}
		}
	}
	return 0, nil
}

func of(a target.Apart, r target.Resource) int {
	if r == target.ResourceFiles {
		return a.Table
	}
	return a.Directories
}

func stray(tid, pid int, r target.Resource) error {
	what := "working directory"
	if r == target.ResourceFiles {
		what = "descriptor table"
	}
	return &refusal{fmt.Sprintf("thread %d", tid), fmt.Sprintf("it shares its %s with process %d, and not with its own process, which this version does not carry", what, pid), ""}
}

// findStrays looks at running processes, by their tasks.
func findStrays(pids []int) ([]record.Finding, error) {
	var list []group
	found := false
	for _, pid := range pids {
		apart, err := target.FindApart(procfs.Host().Process(pid))
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = found || len(apart) > 0
		list = append(list, group{pid, apart})
	}
	if !found {
		return nil, nil
	}
	tid, err := strays(list)
	var r *refusal
	if errors.As(err, &r) {
		return []record.Finding{{Pid: tid, FD: -1, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy}}, nil
	}
	return nil, err
}

// refuseStrays looks again when all are stopped, and whether a copy can have what
// threads have.
func refuseStrays(list []*target.Process) error {
	var all []group
	for _, p := range list {
		apart, err := p.Apart()
		if err != nil {
			return err
		}
		all = append(all, group{p.Pid, apart})
		groups, err := describeGroups(p)
		if err != nil {
			return err
		}
		if len(groups) == 0 {
			continue
		}
		var threads []*state.Thread
		for _, th := range p.Traced.Threads() {
			threads = append(threads, &state.Thread{Tid: int32(th.NSTid)})
		}
		if _, err := birthsOf(threads, groups, p.Traced.NSPid); err != nil {
			return err
		}
	}
	_, err := strays(all)
	return err
}
