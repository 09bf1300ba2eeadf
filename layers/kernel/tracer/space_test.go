// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is two processes with one address space, each with a tracer of its own.
type pair struct {
	tracers [2]*Tracer
	procs   [2]*Process
}

// attach stops both, before anything is done to one of them.
func (x *pair) attach(pids []int) error {
	var space Space
	for i, pid := range pids {
		p, err := x.tracers[i].Attach(context.Background(), Options{Pid: pid})
		if err != nil {
			if i == 1 {
				err = errors.Join(err, x.procs[0].Leave())
			}
			return err
		}
		x.procs[i] = p
	}
	return errors.Join(x.procs[0].Join(&space), x.procs[1].Join(&space))
}

// both does it for both at once.
func (x *pair) both(fn func(*Process) error) error {
	var errs [2]error
	var wg sync.WaitGroup
	for i, p := range x.procs {
		wg.Go(func() { errs[i] = fn(p) })
	}
	wg.Wait()
	return errors.Join(errs[0], errs[1])
}

// visit is what an engine does to them.
func (x *pair) visit(pids []int) error {
	err := x.attach(pids)
	for _, fn := range []func(*Process) error{dump, long, (*Process).Withdraw, (*Process).Detach} {
		if err == nil {
			err = x.both(fn)
		}
	}
	return err
}

// engineOfPair is engineLoop for two processes with one address space.
func engineOfPair(list string) {
	var pids []int
	for text := range strings.SplitSeq(list, ",") {
		pid, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		pids = append(pids, pid)
	}
	x := &pair{tracers: [2]*Tracer{New(), New()}}
	fmt.Println("x")
	for {
		if err := x.visit(pids); errors.Is(err, ErrExited) {
			os.Exit(2)
		} else if err != nil {
			fmt.Println("engine:", err)
			os.Exit(3)
		}
	}
}

// launchPair starts a program of two processes.
func launchPair(t *testing.T, args ...string) (*target, []int) {
	g := launch(t, "lodger", args...)
	pid, err := strconv.Atoi(g.line())
	must(t, err)
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	return g, []int{g.pid, pid}
}

// TestKilledEngineOfAPair: two processes in one memory are unharmed, whatever the moment
// at which an engine dies that works in both, and the next one clears what dead ones
// have left in it.
func TestKilledEngineOfAPair(t *testing.T) {
	total := 300
	if testing.Short() {
		total = 60
	}
	for _, args := range [][]string{nil, {"handlers"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			g, pids := launchPair(t, args...)
			how := "," + strconv.Itoa(pids[1])
			killEnginesOf(t, g, total/2, how, func() { g.verify() })
			_, _, _, left := g.verify()
			t.Logf("%d kills: %d mappings left", total/2, left)
			time.Sleep(leftoverAge)
			x := &pair{tracers: [2]*Tracer{newTracer(t), newTracer(t)}}
			must(t, x.visit(pids))
			if _, _, _, left := g.verify(); left != 0 {
				t.Errorf("%d mappings stay behind", left)
			}
		})
	}
}

// TestPair: each of two processes in one memory has a scratch area of its own and knows
// of the other's, also while that grows.
func TestPair(t *testing.T) {
	g, pids := launchPair(t)
	x := &pair{tracers: [2]*Tracer{newTracer(t), newTracer(t)}}
	for range 20 {
		must(t, x.attach(pids))
		must(t, x.both(func(p *Process) error {
			s, err := p.Scratch()
			if err != nil {
				return err
			}
			for range 3 {
				if _, err := s.Alloc(scratchStep); err != nil {
					return err
				}
			}
			return dump(p)
		}))
		maps, err := readMaps(pids[0])
		must(t, err)
		for _, p := range x.procs {
			ranges := p.ScratchRanges()
			if len(ranges) != 2 || ranges[0].Start < ranges[1].End && ranges[1].Start < ranges[0].End {
				t.Fatalf("scratch areas %x", ranges)
			}
			for _, m := range maps {
				marked := m.Start%holeStep == holeMark && m.Start < 1<<36
				if ours := slices.ContainsFunc(ranges, func(r Range) bool { return m.Start >= r.Start && m.End <= r.End }); marked && !ours {
					t.Fatalf("a mapping at %#x that nobody knows", m.Start)
				}
			}
		}
		must(t, x.both((*Process).Withdraw))
		must(t, x.both((*Process).Detach))
		if _, _, _, left := g.verify(); left != 0 {
			t.Fatalf("%d mappings stay behind", left)
		}
	}
	if err := x.attach(pids); err != nil {
		t.Fatal(err)
	}
	if err := x.procs[0].Join(&Space{}); err == nil {
		t.Error("a process has joined two spaces")
	}
	must(t, x.both((*Process).Detach))
	g.verify()
}
