// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// staying is an engine that attaches once, for killEnginesOf.
const staying = "stay"

// engineLoop is the child of the kill test: attach, batches, detach, forever; or, if
// told to stay, batches forever.
func engineLoop(arg string) {
	if strings.Contains(arg, ",") {
		engineOfPair(arg)
	}
	arg, stay := strings.CutSuffix(arg, staying)
	pid, err := strconv.Atoi(arg)
	if err != nil {
		panic(err)
	}
	tr := New()
	if stay {
		engineStays(tr, pid)
	}
	fmt.Println("x")
	for n := 0; ; n++ {
		p, err := tr.Attach(context.Background(), Options{Pid: pid})
		if errors.Is(err, ErrExited) {
			os.Exit(2)
		}
		if err == nil {
			if err = dump(p); err == nil {
				err = long(p)
			}
			if err == nil {
				err = p.Detach()
			}
		}
		if err != nil {
			fmt.Println("engine:", err)
			os.Exit(3)
		}
	}
}

// engineStays says that it is at work when its memory in the process is mapped.
func engineStays(tr *Tracer, pid int) {
	p, err := tr.Attach(context.Background(), Options{Pid: pid})
	if errors.Is(err, ErrExited) {
		os.Exit(2)
	}
	if err == nil {
		err = dump(p)
	}
	if err == nil {
		fmt.Println("x")
	}
	for err == nil {
		if err = dump(p); err == nil {
			err = long(p)
		}
	}
	fmt.Println("engine:", err)
	os.Exit(3)
}

// long is a batch that is under way while an engine that was killed dies: that
// takes some hundred microseconds, in which it traces on.
func long(p *Process) error {
	calls := slices.Repeat([]Call{Syscall(unix.SYS_GETPPID)}, 5*maxCalls)
	return p.Run(p.Leader(), calls)
}

// killEngines lets n engines work on the target and kills each at a random
// moment.
func killEngines(t *testing.T, g *target, n int) {
	t.Helper()
	killEnginesOf(t, g, n, "", func() { g.verify() })
}

// killEnginesOf asks verify now and then. how: engines attach again and again, or are
// staying.
func killEnginesOf(t *testing.T, g *target, n int, how string, verify func()) {
	t.Helper()
	for i := range n {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), engineEnv+"="+strconv.Itoa(g.pid)+how)
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		first := make([]byte, 2)
		if _, err := out.Read(first); err != nil {
			t.Fatalf("after %d kills: engine said nothing: %v, %v", i, err, c.Wait())
		}
		time.Sleep(time.Duration(rand.Intn(9000)) * time.Microsecond)
		_ = c.Process.Kill()
		rest := make([]byte, 512)
		k, _ := out.Read(rest)
		_ = c.Wait()
		if k > 0 {
			t.Fatalf("after %d kills: %s", i, rest[:k])
		}
		if i%10 == 9 {
			verify()
		}
	}
}

// TestKilledEngineOfAStopped: a process that job control has stopped stays so,
// wherever in an injection the death of an engine leaves it, and the next engine
// finds it as it is.
func TestKilledEngineOfAStopped(t *testing.T) {
	total := 200
	if testing.Short() {
		total = 50
	}
	g := launch(t, "victim")
	stop := func() {
		must(t, unix.Kill(g.pid, unix.SIGSTOP))
		g.waitState('T')
	}
	stop()
	killEnginesOf(t, g, total, "", func() {
		g.waitState('T')
		must(t, unix.Kill(g.pid, unix.SIGCONT))
		g.verify()
		stop()
	})
	// While it stays stopped nobody else brings it out of a dead one's injection.
	killEnginesOf(t, g, 9, "", nil)
	tr := newTracer(t)
	p := attach(t, tr, g.pid)
	must(t, dump(p))
	must(t, p.Detach())
	g.waitState('T')
	must(t, unix.Kill(g.pid, unix.SIGCONT))
	g.verify()
}

// TestKilledEngine: whatever the moment at which the engine dies, the target
// goes on unharmed: registers, vector state, masks, dispositions, memory.
func TestKilledEngine(t *testing.T) {
	total := 1000
	if testing.Short() {
		total = 100
	}
	for _, c := range []struct {
		name string
		n    int
		args []string
	}{
		{"victim", total * 5 / 10, nil},
		{"victim-dyn", total * 2 / 10, []string{"alarm"}},
		{"victim", total * 3 / 10, []string{"handle,alarm"}},
	} {
		t.Run(fmt.Sprint(c.name, c.args), func(t *testing.T) {
			g := launch(t, c.name, c.args...)
			killEngines(t, g, c.n)
			_, eintr, _, maps := g.verify()
			t.Logf("%d kills: %d system calls interrupted visibly, %d mappings left", c.n, eintr, maps)
			// The next engine clears what the dead ones left.
			time.Sleep(leftoverAge)
			p := attach(t, newTracer(t), g.pid)
			must(t, dump(p))
			must(t, p.Detach())
			if _, _, _, maps = g.verify(); maps != 0 {
				t.Errorf("%d mappings stay behind", maps)
			}
		})
	}
}

// TestKilledEngineOfAFiltered: a program that its filter kills for almost any call
// lives through the deaths of engines, at work in it or on their way in and out. Where
// the filter kills for mmap(2), too, those on their way may let it die (linger): so
// they are for soaks.
func TestKilledEngineOfAFiltered(t *testing.T) {
	soak := os.Getenv("MIG_SOAK") != ""
	total := 100
	if n, _ := strconv.Atoi(os.Getenv("MIG_KILLS")); n > 0 {
		total = n
	}
	type kind struct {
		how  string
		args []string
	}
	kinds := []kind{{staying, nil}, {"", []string{"maps"}}, {staying, []string{"maps"}}}
	if soak {
		kinds = append(kinds, kind{"", nil})
	}
	for _, c := range kinds {
		t.Run(fmt.Sprint("engines", c.how, c.args), func(t *testing.T) {
			g := launch(t, "strict", c.args...)
			if n, _ := strconv.Atoi(os.Getenv("MIG_NICE")); n > 0 {
				must(t, unix.Setpriority(unix.PRIO_PROCESS, g.pid, n))
			}
			alive := func() {
				if _, err := g.in.Write([]byte("x")); err != nil {
					t.Fatalf("%v: it has ended: %v", err, g.cmd.Wait())
				}
				if s := g.line(); s != "OK" {
					t.Fatal(s)
				}
			}
			killEnginesOf(t, g, total, c.how, alive)
			alive()
			time.Sleep(leftoverAge)
			p := attach(t, newTracer(t), g.pid)
			must(t, dump(p))
			must(t, p.Detach())
			alive()
			if maps, err := readMaps(g.pid); err != nil || slices.ContainsFunc(maps, func(m mapping) bool { return m.Shared || m.Start%holeStep == holeMark }) {
				t.Errorf("mappings stay behind: %v %v", maps, err)
			}
		})
	}
}

// TestKilledEngineOfAWaiting: a wait with a time-out does not end with EINTR, also if
// engine after engine has interrupted it.
func TestKilledEngineOfAWaiting(t *testing.T) {
	total := 50
	if testing.Short() {
		total = 20
	}
	g := launch(t, "told-dyn")
	waits := func() {
		if st := g.state(); st == 'Z' {
			t.Fatal("the call has returned")
		}
	}
	killEnginesOf(t, g, total, "", waits)
	waits()
	must(t, attach(t, newTracer(t), g.pid).Detach())
}

// TestKilledEngineOfALeaderless: threads that have outlived their leader live
// through the deaths of engines as others do.
func TestKilledEngineOfALeaderless(t *testing.T) {
	total := 200
	if testing.Short() {
		total = 50
	}
	g := launch(t, "many", "4", "exit")
	g.waitState('Z')
	alive := func() {
		tids, err := listTasks(g.pid)
		must(t, err)
		for _, tid := range tids {
			st, err := readStatus(g.pid, tid)
			must(t, err)
			if (st.State == 'Z') != (tid == g.pid) || st.State == 'T' {
				t.Fatalf("thread %d: state %c", tid, st.State)
			}
		}
		if len(tids) != 4 {
			t.Fatalf("threads %v", tids)
		}
	}
	killEnginesOf(t, g, total, "", alive)
	time.Sleep(leftoverAge)
	p := attach(t, newTracer(t), g.pid)
	for _, th := range p.Threads() {
		// All of them are in pause(2), from which nothing has woken them.
		if r, err := th.Registers(); err != nil || r.OrigRax != unix.SYS_PAUSE {
			t.Errorf("thread %d: system call %d, %v", th.Tid, int64(r.OrigRax), err)
		}
	}
	must(t, dump(p))
	must(t, p.Detach())
	alive()
}
