// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	strayThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM | unix.CLONE_PTRACE
	strayChild  = unix.CLONE_PTRACE
)

// makeTasks has a frame make tasks that are born traced, which nobody adopts.
func makeTasks(p *Process, n int, flags uint64) ([]Call, error) {
	s, err := p.Scratch()
	if err != nil {
		return nil, err
	}
	const size = 88 // of struct clone_args
	b := make([]byte, size)
	binary.LittleEndian.PutUint64(b, flags)
	if flags&unix.CLONE_THREAD == 0 {
		binary.LittleEndian.PutUint64(b[32:], uint64(unix.SIGCHLD))
	}
	at, err := s.Put(b)
	if err != nil {
		return nil, err
	}
	calls := make([]Call, n)
	for i := range calls {
		calls[i] = Syscall(unix.SYS_CLONE3, at, size)
	}
	if err := p.Run(p.Leader(), calls); err != nil {
		return nil, err
	}
	return calls, Check(calls)
}

// killSoon kills a frame, and fails where it has to wait for what is only over
// when this program is.
func killSoon(t *testing.T, p *Process) {
	t.Helper()
	begun := time.Now()
	err := p.Kill()
	if took := time.Since(begun); err != nil || took > killPatience/3 {
		_ = p.Tracer.Close() // or the process outlives the test
		t.Fatalf("Kill took %s: %v", took, err)
	}
}

// noTracees checks that a tracer has nothing left, dead or alive, but the frame
// itself: that is a child of this program, which waits for it elsewhere.
func noTracees(t *testing.T, tr *Tracer) {
	t.Helper()
	procs, err := os.ReadDir("/proc")
	must(t, err)
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		tids, _ := listTasks(pid) // it may have ended
		for _, tid := range tids {
			if st, err := readStatus(pid, tid); err == nil && st.TracerPid == tr.tid && st.PPid != os.Getpid() {
				t.Errorf("task %d of process %d is left, state %c", tid, pid, st.State)
			}
		}
	}
}

// TestKillWithStrays: tasks that a frame has made, and that were not adopted,
// since something failed in between, are tracees like the others: their end is
// ours to take. A frame is not reported dead before that of its threads was, and
// the first process of a pid namespace not before that of its children.
func TestKillWithStrays(t *testing.T) {
	for name, flags := range map[string]uint64{"threads": strayThread, "children": strayChild} {
		t.Run(name, func(t *testing.T) {
			tr := newTracer(t)
			p, _ := newInit(t, tr)
			_, err := makeTasks(p, 5, flags)
			must(t, err)
			killSoon(t, p)
			noTracees(t, tr)
		})
	}
}

// TestKillWithStraysOfAChild: the same of a process that is not the first one;
// its children are the first one's when it is dead.
func TestKillWithStraysOfAChild(t *testing.T) {
	for name, flags := range map[string]uint64{"threads": strayThread, "children": strayChild} {
		t.Run(name, func(t *testing.T) {
			tr := newTracer(t)
			p, _ := newInit(t, tr)
			calls, err := makeTasks(p, 1, strayChild)
			must(t, err)
			child, err := p.AdoptChild(int(calls[0].Ret))
			must(t, err)
			_, err = makeTasks(child, 5, flags)
			must(t, err)
			killSoon(t, child)
			killSoon(t, p)
			noTracees(t, tr)
		})
	}
}

// TestKilledWhileItIsBuilt: somebody else kills a frame at any moment, as what
// cleans up behind a dead shim does; there may be tasks by then of which the
// tracer was not told yet.
func TestKilledWhileItIsBuilt(t *testing.T) {
	rounds := 200
	if n, err := strconv.Atoi(os.Getenv("MIG_KILLS")); err == nil {
		rounds = n
	}
	built := 0
	for i := range rounds {
		tr := New()
		p, c := newInit(t, tr)
		pid := c.Process.Pid
		timer := time.AfterFunc(rand.N(3*time.Millisecond), func() { _ = unix.Kill(pid, unix.SIGKILL) })
		begun := time.Now()
		children, err := buildUnderFire(p, i)
		if took := time.Since(begun); took > DefaultBatchTimeout/2 {
			t.Errorf("building took %s to notice: %v; %s", took, err, p.lingering())
		}
		if err == nil {
			built++
		}
		for _, child := range children { // as target.Task.Cleanup does
			killSoon(t, child)
		}
		killSoon(t, p)
		timer.Stop()
		noTracees(t, tr)
		must(t, tr.Close())
		if t.Failed() {
			t.Fatalf("round %d, in which building said: %v", i, err)
		}
	}
	t.Logf("%d of %d were built before", built, rounds)
}

// buildUnderFire gives a frame threads, or children, and adopts them.
func buildUnderFire(p *Process, round int) (children []*Process, err error) {
	flags := uint64(strayThread)
	if round%2 == 1 {
		flags = strayChild
	}
	for range 4 {
		calls, err := makeTasks(p, 2, flags)
		if err != nil {
			return children, err
		}
		for _, c := range calls {
			var child *Process
			if flags == strayChild {
				child, err = p.AdoptChild(int(c.Ret))
			} else {
				_, err = p.AdoptThreads([]int{int(c.Ret)})
			}
			if err != nil {
				return children, fmt.Errorf("adopt: %w", err)
			}
			if child != nil {
				children = append(children, child)
			}
		}
	}
	return children, nil
}
