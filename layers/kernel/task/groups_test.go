// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/state"
)

// threadWorld is a process whose threads do what threads can: what each has is known
// by numbers.
type threadWorld struct {
	all         map[int]has
	next, fresh int
}

const leaderID = 10

func newThreadWorld() *threadWorld {
	return &threadWorld{all: map[int]has{leaderID: {1, 1}}, next: leaderID + 1, fresh: 2}
}

func (w *threadWorld) new() int { w.fresh++; return w.fresh }

// live lets n things happen. The leader's directories and table may become others',
// too, but it does not end.
func (w *threadWorld) live(r *rand.Rand, n int) {
	for range n {
		tids := slices.Sorted(maps.Keys(w.all))
		tid := tids[r.IntN(len(tids))]
		h := w.all[tid]
		parts := func() {
			if r.IntN(3) == 0 {
				h.directories = w.new()
			}
			if r.IntN(3) == 0 {
				h.table = w.new()
			}
		}
		switch r.IntN(8) {
		case 0, 1, 2, 3: // clone(2)
			parts()
			w.all[w.next] = h
			w.next++
		case 4, 5: // unshare(2)
			parts()
			w.all[tid] = h
		case 6, 7:
			if tid != leaderID {
				delete(w.all, tid)
			}
		}
	}
}

// image is what an export says.
func (w *threadWorld) image() (threads []*state.Thread, groups []*state.ThreadGroup) {
	home := w.all[leaderID]
	directories, tables := map[int]int32{home.directories: 0}, map[int]int32{home.table: 0}
	name := func(m map[int]int32, what, tid int) int32 {
		if _, ok := m[what]; !ok {
			m[what] = int32(tid)
		}
		return m[what]
	}
	for _, tid := range slices.Sorted(maps.Keys(w.all)) {
		threads = append(threads, &state.Thread{Tid: int32(tid)})
		h := w.all[tid]
		g := &state.ThreadGroup{Tid: int32(tid), Directories: name(directories, h.directories, tid), Table: name(tables, h.table, tid)}
		if g.Directories != 0 || g.Table != 0 {
			groups = append(groups, g)
		}
	}
	return threads, groups
}

// play makes threads as a plan says, and returns what each has.
func play(births []birth) (map[int]has, error) {
	made, fresh := map[int]has{0: {}}, -1
	for _, b := range births {
		h, ok := made[b.by]
		if _, twice := made[b.tid]; !ok || twice {
			return nil, fmt.Errorf("thread %d is made by %d, or twice", b.tid, b.by)
		}
		if !b.directories {
			h.directories, fresh = fresh, fresh-1
		}
		if !b.table {
			h.table, fresh = fresh, fresh-1
		}
		made[b.tid] = h
	}
	return made, nil
}

// same compares who has something in common with whom.
func compareThreads(made map[int]has, apart map[int]has, threads []*state.Thread) error {
	made[leaderID] = made[0]
	for _, a := range threads {
		for _, b := range threads {
			i, j := int(a.Tid), int(b.Tid)
			x, y := made[i], made[j]
			if (x.directories == y.directories) != (apart[i].directories == apart[j].directories) || (x.table == y.table) != (apart[i].table == apart[j].table) {
				return fmt.Errorf("threads %d and %d have %v and %v, and had %v and %v", i, j, x, y, apart[i], apart[j])
			}
		}
	}
	return nil
}

// TestBirthsOfHistories: whatever threads have done, they can be made so that each has
// in common with each what it had.
func TestBirthsOfHistories(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newThreadWorld()
		w.live(r, 2+r.IntN(40))
		threads, groups := w.image()
		births, err := birthsOf(threads, groups, leaderID)
		if err != nil {
			t.Fatalf("seed %d: %v: %v", seed, groups, err)
		}
		made, err := play(births)
		if err == nil {
			err = compareThreads(made, w.all, threads)
		}
		if err != nil || len(births) != len(threads)-1 {
			t.Fatalf("seed %d: %v: %d births of %d threads: %v", seed, groups, len(births), len(threads), err)
		}
	}
}

// TestHostileGroups: lists that contradict themselves, and such as no history leaves.
func TestHostileGroups(t *testing.T) {
	threads := []*state.Thread{{Tid: leaderID}, {Tid: 11}, {Tid: 12}, {Tid: 13}}
	group := func(tid, directories, table int32) *state.ThreadGroup {
		return &state.ThreadGroup{Tid: tid, Directories: directories, Table: table}
	}
	for what, list := range map[string][]*state.ThreadGroup{
		"twice":                {group(11, 11, 0), group(11, 0, 11)},
		"no such thread":       {group(14, 14, 0)},
		"the leader":           {group(leaderID, leaderID, 0)},
		"nothing of its own":   {group(11, 0, 0)},
		"of nobody":            {group(11, 0, 12)},
		"of one who has none":  {group(11, 11, 0), group(12, 0, 11)},
		"of one who follows":   {group(11, 12, 0), group(12, 13, 0), group(13, 13, 0)},
		"in a circle":          {group(11, 12, 0), group(12, 11, 0)},
		"of a negative number": {group(11, -1, 0)},
	} {
		if _, err := birthsOf(threads, list, leaderID); !errors.Is(err, errImage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var r *refusal
	circle := []*state.ThreadGroup{group(11, 11, 0), group(12, 0, 12), group(13, 11, 12)}
	if _, err := birthsOf(threads, circle, leaderID); !errors.As(err, &r) {
		t.Errorf("what no thread can have come by: %v", err)
	}
	process, one := pack(t, &state.Process{Pid: 1, Threads: 1}), pack(t, &state.ThreadGroups{Thread: circle[:1]})
	for what, feed := range map[string]func(*Subsystem) error{
		"before the process": func(s *Subsystem) error { return s.take(KindGroups, 1, one) },
		"more than announced": func(s *Subsystem) error {
			return errors.Join(s.take(KindProcess, 1, process), s.take(KindGroups, 1, one), s.take(KindGroups, 1, one))
		},
		"no protobuf": func(s *Subsystem) error {
			return errors.Join(s.take(KindProcess, 1, process), s.take(KindGroups, 1, []byte{0xff}))
		},
		"shared": func(s *Subsystem) error { return s.take(KindGroups, 0, one) },
	} {
		if err := feed(withTree()); !errors.Is(err, errImage) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzGroups: whatever a list says, there is an error or a plan, soon, that makes each
// thread once and gives it what the list says.
func FuzzGroups(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newThreadWorld()
		w.live(r, 4+r.IntN(20))
		threads, groups := w.image()
		f.Add(pack(f, &state.Threads{Thread: threads}), pack(f, &state.ThreadGroups{Thread: groups}))
	}
	f.Fuzz(func(t *testing.T, threads, groups []byte) {
		var m state.Threads
		var list state.ThreadGroups
		if proto.Unmarshal(threads, &m) != nil || proto.Unmarshal(groups, &list) != nil || len(m.Thread) > 200 {
			return
		}
		seen := map[int32]bool{0: true}
		for _, th := range m.Thread {
			if seen[th.Tid] || th.Tid < 0 {
				return // receive and check refuse it
			}
			seen[th.Tid] = true
		}
		begun := time.Now()
		births, err := birthsOf(m.Thread, list.Thread, leaderID)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%d threads take %v", len(m.Thread), took)
		}
		if err != nil {
			return
		}
		apart := map[int]has{}
		for _, g := range list.Thread {
			apart[int(g.Tid)] = has{int(g.Directories), int(g.Table)}
		}
		made, err := play(births)
		if err == nil {
			err = compareThreads(made, apart, m.Thread)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// TestGoldenGroups: a record as the first version that knows it has written it.
func TestGoldenGroups(t *testing.T) {
	// Thread 11 has both for itself, 12 has its table and the process's directories.
	const payload = "\x0a\x06\x08\x0b\x10\x0b\x18\x0b" + "\x0a\x04\x08\x0c\x18\x0b"
	s := withTree()
	process := pack(t, &state.Process{Pid: leaderID, Threads: 3})
	if err := errors.Join(s.take(KindProcess, 1, process), s.take(6, 1, []byte(payload))); err != nil {
		t.Fatal(err)
	}
	births, err := birthsOf([]*state.Thread{{Tid: leaderID}, {Tid: 11}, {Tid: 12}}, s.kept[1].groups, leaderID)
	want := []birth{{tid: 12, directories: true}, {tid: 11, by: 12, table: true}}
	if err != nil || !slices.Equal(births, want) {
		t.Errorf("%+v, %v", births, err)
	}
}
