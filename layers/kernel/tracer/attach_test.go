// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStorm: a program that makes threads and processes as fast as it can is
// attached to again and again, without a hang or a death. A vfork parent may
// refuse; then nothing stays attached.
func TestStorm(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	for _, args := range [][]string{nil, {"nofork"}} {
		g := launch(t, "storm", args...)
		tr := newTracer(t)
		refused := 0
		for i := range n / 2 {
			p, err := tr.Attach(context.Background(), Options{Pid: g.pid, Timeout: 2 * time.Second})
			if errors.Is(err, ErrVfork) {
				refused++
				continue
			}
			if err != nil {
				t.Fatal(i, err)
			}
			if i%4 == 0 {
				must(t, dump(p))
			}
			must(t, p.Detach())
		}
		_, err := g.in.Write([]byte("x"))
		must(t, err)
		if s := g.line(); s != "OK" {
			t.Fatal(s)
		}
		if refused > n/4 {
			t.Errorf("%d of %d attachments refused because of vfork", refused, n/2)
		}
	}
}

// TestSignalsArrive: signals sent while the target is attached, stopped, in
// batches and detached all arrive, with their siginfo.
func TestSignalsArrive(t *testing.T) {
	g := launch(t, "victim", "alarm")
	tr := newTracer(t)
	const total = 3000
	sent := make(chan error, 1)
	go func() {
		for range total {
			var info [128]byte
			const siQueue = -1
			sig, code := 35, int32(siQueue)
			info[0] = byte(sig)
			copy(info[8:], []byte{byte(code), byte(code >> 8), byte(code >> 16), byte(code >> 24)})
			copy(info[16:], []byte{1, 0, 0, 0})
			copy(info[24:], []byte{0x67, 0x12}) // 4711
			for {
				err := sigqueue(g.pid, sig, &info)
				if err == nil {
					break
				}
				if !errors.Is(err, unix.EAGAIN) { // RLIMIT_SIGPENDING
					sent <- err
					return
				}
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Duration(rand.Intn(600)) * time.Microsecond)
		}
		sent <- nil
	}()
	rounds := 0
	for done := false; !done; rounds++ {
		select {
		case err := <-sent:
			must(t, err)
			done = true
		default:
		}
		p := attach(t, tr, g.pid)
		if rounds%3 != 0 {
			must(t, dump(p))
		}
		must(t, p.Detach())
	}
	rt, eintr, alarms, maps := g.verify()
	t.Logf("%d attachments, %d alarms", rounds, alarms)
	if rt != total || eintr != 0 || maps != 0 || alarms == 0 {
		t.Errorf("%d of %d signals arrived, eintr %d, maps %d", rt, total, eintr, maps)
	}
}

func TestPendingSignalsAreSeen(t *testing.T) {
	g := launch(t, "victim")
	p := attach(t, newTracer(t), g.pid)
	for range 3 {
		must(t, unix.Kill(g.pid, 35))
	}
	list, err := p.Leader().PeekSiginfo(true)
	must(t, err)
	if len(list) != 3 || list[0].Signo() != 35 {
		t.Fatalf("%d pending", len(list))
	}
	must(t, dump(p))
	must(t, p.Detach())
	if rt, _, _, _ := g.verify(); rt != 3 {
		t.Fatalf("%d of 3 arrived", rt)
	}
}

// TestPendingSignalsUnderSignals: all are seen while the thread that looks is sent
// signals itself, as Go's scheduler does it.
func TestPendingSignalsUnderSignals(t *testing.T) {
	const queued, looks = 70, 2000
	g := launch(t, "victim")
	tr := newTracer(t)
	p := attach(t, tr, g.pid)
	for range queued {
		must(t, unix.Kill(g.pid, 35))
	}
	var tid int
	must(t, tr.Do(func() error { tid = unix.Gettid(); return nil }))
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}
	})
	least := queued
	for range looks {
		list, err := p.Leader().PeekSiginfo(true)
		must(t, err)
		least = min(least, len(list))
	}
	close(done)
	sender.Wait()
	if least != queued {
		t.Errorf("a look saw %d of %d signals", least, queued)
	}
	must(t, p.Detach())
	if rt, _, _, _ := g.verify(); rt != queued {
		t.Errorf("%d of %d arrived", rt, queued)
	}
}

// TestGroupStop: a stopped process stays stopped, even after remote calls,
// and SIGCONT wakes it; one that is stopped while attached stops too.
func TestGroupStop(t *testing.T) {
	g := launch(t, "victim")
	tr := newTracer(t)
	must(t, unix.Kill(g.pid, unix.SIGSTOP))
	g.waitState('T')
	for range 20 {
		p := attach(t, tr, g.pid)
		for _, th := range p.Threads() {
			if th.Stopped != int(unix.SIGSTOP) {
				t.Fatalf("task %d: Stopped is %d", th.Tid, th.Stopped)
			}
		}
		must(t, dump(p))
		must(t, p.Detach())
		g.waitState('T')
	}
	time.Sleep(20 * time.Millisecond)
	if g.state() != 'T' {
		t.Fatal("does not stay stopped")
	}
	must(t, unix.Kill(g.pid, unix.SIGCONT))
	g.verify()

	p := attach(t, tr, g.pid)
	if p.Leader().Stopped != 0 {
		t.Fatal("a running process was taken for a stopped one")
	}
	must(t, unix.Kill(g.pid, unix.SIGSTOP)) // while attached: seen in a batch
	must(t, dump(p))
	must(t, p.Detach())
	g.waitState('T')
	must(t, unix.Kill(g.pid, unix.SIGCONT))
	if _, _, _, maps := g.verify(); maps != 0 {
		t.Error("mappings left", maps)
	}
}

func TestRefusals(t *testing.T) {
	tr := newTracer(t)
	ctx := context.Background()
	t.Run("traced", func(t *testing.T) {
		g := launch(t, "victim")
		debugger := newTracer(t)
		p := attach(t, debugger, g.pid)
		_, err := tr.Attach(ctx, Options{Pid: g.pid})
		var te *TracedError
		if !errors.Is(err, ErrTraced) || !errors.As(err, &te) || te.TracerPid != os.Getpid() {
			t.Fatal(err)
		}
		must(t, p.Detach())
		g.verify()
	})
	t.Run("vfork", func(t *testing.T) {
		g := launch(t, "many", "3", "vfork")
		g.waitState('D')
		start := time.Now()
		_, err := tr.Attach(ctx, Options{Pid: g.pid, Timeout: 100 * time.Millisecond})
		if !errors.Is(err, ErrVfork) || !errors.Is(err, ErrNoStop) || time.Since(start) > 800*time.Millisecond {
			t.Fatal(err, time.Since(start))
		}
		_, err = g.in.Write([]byte("x"))
		must(t, err)
		if g.line() != "OK" { // the vfork parent was let go, too
			t.Fatal("does not answer")
		}
		p := attach(t, tr, g.pid)
		must(t, p.Detach())
	})
	t.Run("gone", func(t *testing.T) {
		if _, err := tr.Attach(ctx, Options{Pid: 1 << 22}); !errors.Is(err, ErrExited) {
			t.Fatal(err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		g := launch(t, "many", "2", "vfork")
		g.waitState('D')
		c, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := tr.Attach(c, Options{Pid: g.pid}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// TestExitInTheMiddle: a process killed at any moment is reported as such,
// its parent gets its status, and nothing hangs.
func TestExitInTheMiddle(t *testing.T) {
	tr := newTracer(t)
	exe := program(t, "victim")
	needRoot(t)
	for i := range 100 {
		c := exec.Command(exe)
		out, _ := c.StdoutPipe()
		_, _ = c.StdinPipe()
		must(t, c.Start())
		_, _ = out.Read(make([]byte, 16))
		pid := c.Process.Pid
		go func() {
			time.Sleep(time.Duration(rand.Intn(2000)) * time.Microsecond)
			_ = unix.Kill(pid, unix.SIGKILL)
		}()
		for {
			p, err := tr.Attach(context.Background(), Options{Pid: pid})
			if err == nil {
				if err = dump(p); err == nil {
					err = p.Detach()
				} else {
					_ = p.Leave()
				}
			}
			if errors.Is(err, ErrExited) {
				break
			}
			if err != nil {
				t.Fatal(i, err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatal(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the parent does not get the status")
		}
	}
}

// TestLeaveMidway: an engine that gives up at any stage leaves the target
// unharmed.
func TestLeaveMidway(t *testing.T) {
	g := launch(t, "victim")
	tr := newTracer(t)
	for i := range 200 {
		p := attach(t, tr, g.pid)
		switch i % 4 {
		case 1:
			_, err := p.Scratch()
			must(t, err)
		case 2:
			must(t, p.Run(p.Threads()[2], []Call{getpid}))
		case 3:
			must(t, dump(p))
		}
		must(t, p.Leave())
		if err := p.Run(nil, nil); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	}
	if _, eintr, _, maps := g.verify(); eintr != 0 || maps != 0 {
		t.Error(eintr, maps)
	}
}

// TestBlockingCall: a remote call that never returns ends the batch with a
// named error, and the target goes on.
func TestBlockingCall(t *testing.T) {
	g := launch(t, "victim")
	p, err := newTracer(t).Attach(context.Background(), Options{Pid: g.pid, BatchTimeout: 50 * time.Millisecond})
	must(t, err)
	th := p.Threads()[1]
	calls := []Call{getpid, Syscall(unix.SYS_PAUSE), getpid}
	err = p.Run(th, calls)
	var be *BatchError
	if !errors.As(err, &be) || !errors.Is(err, ErrNoStop) || be.Call != 1 || be.Nr != unix.SYS_PAUSE {
		t.Fatal(err)
	}
	if calls[0].Failed() || !calls[2].Failed() {
		t.Fatalf("%+v", calls)
	}
	must(t, p.Leave())
	if _, _, _, maps := g.verify(); maps != 0 {
		t.Error("mappings left", maps)
	}
}

// TestSeccomp: a filter that forbids what we call is suspended meanwhile.
func TestSeccomp(t *testing.T) {
	g := launch(t, "strict")
	p := attach(t, newTracer(t), g.pid)
	calls := []Call{getpid, Syscall(unix.SYS_UNAME, 0)}
	must(t, p.Run(p.Leader(), calls))
	if calls[0].Ret != int64(g.pid) || !errors.Is(calls[1].Errno(), unix.EFAULT) {
		t.Fatalf("%+v", calls)
	}
	must(t, p.Detach())
	_, err := g.in.Write([]byte("x"))
	must(t, err)
	if s := g.line(); s != "OK" {
		t.Fatal(s)
	}
}

// TestSeccompRestart: a program whose filter does not expect the call by which the
// kernel continues one with a time-out lives through stops in the middle of it.
func TestSeccompRestart(t *testing.T) {
	g := launch(t, "strict", "poll")
	tr := newTracer(t)
	for i := range 20 {
		g.waitState('S')
		p := attach(t, tr, g.pid)
		if i%2 == 0 {
			must(t, p.Run(p.Leader(), []Call{getpid}))
		}
		must(t, p.Detach())
	}
	_, err := g.in.Write([]byte("x"))
	must(t, err)
	if s := g.line(); s != "OK" {
		t.Fatal(s)
	}
}

// TestStoppedAgain: a wait on a futex that is continued when it is stopped again is
// known as what it is, also where libc was told its number: to a program it does not
// end with EINTR.
func TestStoppedAgain(t *testing.T) {
	for _, name := range []string{"told", "told-dyn"} {
		t.Run(name, func(t *testing.T) {
			g := launch(t, name)
			tr := newTracer(t)
			for _, in := range []uint64{unix.SYS_FUTEX, unix.SYS_RESTART_SYSCALL} {
				for !strings.HasPrefix(currentSyscall(g.pid, g.pid), fmt.Sprint(in, " ")) {
					time.Sleep(time.Millisecond)
				}
				p := attach(t, tr, g.pid)
				r, err := p.Leader().Registers()
				must(t, err)
				to, kind, err := p.Leader().ResumeRegisters()
				must(t, err)
				if r.OrigRax != in {
					t.Fatalf("it is in call %d, not in %d", r.OrigRax, in)
				}
				if kind != RestartTimeout || to.Rax != unix.SYS_FUTEX || to.Rip != r.Rip-syscallInsnSize {
					t.Errorf("in call %d it goes on with %d at %#x, kind %d", in, int64(to.Rax), to.Rip, kind)
				}
				must(t, p.Detach())
			}
		})
	}
}

// TestDeadLeader: threads that have outlived their leader are stopped and make
// calls, and are found in the order of their ids; as often as one likes.
func TestDeadLeader(t *testing.T) {
	g := launch(t, "many", "4", "exit")
	g.waitState('Z')
	tr := newTracer(t)
	for range 3 {
		p := attach(t, tr, g.pid)
		threads := p.Threads()
		if len(threads) != 3 || p.Leader() != threads[0] || threads[0].Tid == g.pid || p.NSPid != g.pid {
			t.Fatalf("threads %v, leader %v, pid %d in its namespace", threads, p.Leader(), p.NSPid)
		}
		for _, th := range threads {
			calls := []Call{getpid, Syscall(unix.SYS_GETTID)}
			must(t, p.Run(th, calls))
			if calls[0].Ret != int64(g.pid) || calls[1].Ret != int64(th.Tid) {
				t.Fatalf("%+v", calls)
			}
		}
		must(t, p.Detach())
		for _, th := range threads {
			if st, err := readStatus(g.pid, th.Tid); err != nil || st.TracerPid != 0 {
				t.Fatalf("thread %d: %+v %v", th.Tid, st, err)
			}
		}
	}
	// It ends like any other.
	p := attach(t, tr, g.pid)
	must(t, p.Kill())
}

// TestLeaderEndsWhileAttaching: a leader that ends by itself at any moment of an
// attach, and a process that ends with it.
func TestLeaderEndsWhileAttaching(t *testing.T) {
	tr := newTracer(t)
	for i := range 60 {
		how := "later"
		if i%2 == 0 {
			how = "all"
		}
		g := launch(t, "many", "3", how)
		_, err := g.in.Write([]byte("x"))
		must(t, err)
		time.Sleep(time.Duration(i) * 20 * time.Microsecond)
		p, err := tr.Attach(context.Background(), Options{Pid: g.pid})
		if how == "all" && errors.Is(err, ErrExited) {
			continue
		}
		must(t, err)
		must(t, p.Run(p.Leader(), []Call{getpid}))
		must(t, p.Detach())
	}
}

// TestExecWhileAttaching: programs that exec from another thread than the
// leader.
func TestExecWhileAttaching(t *testing.T) {
	g := launch(t, "execer")
	tr := newTracer(t)
	for i := range 200 {
		p, err := tr.Attach(context.Background(), Options{Pid: g.pid})
		if err != nil {
			t.Fatal(i, err)
		}
		if i%2 == 0 {
			must(t, p.Run(p.Threads()[0], []Call{getpid}))
		}
		must(t, p.Detach())
	}
	// In execve the leader is a zombie for a moment; a dead one stays so.
	for i := 0; g.state() == 'Z'; i++ {
		if i > 2000 {
			t.Fatal("died")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestThaw(t *testing.T) {
	g := launch(t, "victim")
	n := 0
	p, err := newTracer(t).Attach(context.Background(), Options{Pid: g.pid, Thaw: func() error { n++; return nil }})
	must(t, err)
	must(t, p.Detach())
	if n != 1 {
		t.Fatalf("thawed %d times", n)
	}
	want := errors.New("cannot thaw")
	if _, err := newTracer(t).Attach(context.Background(), Options{Pid: g.pid, Thaw: func() error { return want }}); !errors.Is(err, want) {
		t.Fatal(err)
	}
	g.verify()
}

// TestFullStack: a stack that has just grown to where the program stands has no
// dead memory below.
func TestFullStack(t *testing.T) {
	g := launch(t, "fullstack")
	tr := newTracer(t)
	for range 3 {
		_, err := g.in.Write([]byte("x"))
		must(t, err)
		if s := g.line(); s != "there" {
			t.Fatal(s)
		}
		g.waitState('S')
		p, err := tr.Attach(context.Background(), Options{Pid: g.pid})
		must(t, err)
		calls := []Call{Syscall(unix.SYS_GETPID)}
		must(t, p.Run(p.Leader(), calls))
		must(t, Check(calls))
		must(t, p.Detach())
		must(t, unix.Kill(g.pid, unix.SIGUSR1))
		if s := g.line(); s != "OK" {
			t.Fatal(s)
		}
	}
}
