// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFrameELFIsValid(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(FrameELF()))
	must(t, err)
	if f.Type != elf.ET_EXEC || f.Machine != elf.EM_X86_64 || f.Entry != FrameBase+frameEntry || len(f.Progs) != 2 {
		t.Fatalf("%+v", f.FileHeader)
	}
	if len(FrameELF()) > pageSize {
		t.Fatal("more than a page")
	}
}

// startShell returns when the shell itself runs: its own exec is over.
func startShell(t *testing.T, c *exec.Cmd) io.Writer {
	t.Helper()
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	must(t, c.Start())
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	return in
}

// newFrame starts a process that waits and then execs the frame program, as
// a created container's init does.
func newFrame(t *testing.T, tr *Tracer) (*Process, *exec.Cmd) { return frameIn(t, tr, 0) }

// newInit makes a frame that is the first process of a pid namespace.
func newInit(t *testing.T, tr *Tracer) (*Process, *exec.Cmd) {
	return frameIn(t, tr, unix.CLONE_NEWPID)
}

func frameIn(t *testing.T, tr *Tracer, namespaces uintptr) (*Process, *exec.Cmd) {
	t.Helper()
	needRoot(t)
	elfFile, err := FrameFile()
	must(t, err)
	defer elfFile.Close()
	c := exec.Command("/bin/sh", "-c", "echo up; read x; exec /proc/self/fd/3")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	c.ExtraFiles = []*os.File{elfFile}
	in := startShell(t, c)
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	p, err := tr.AttachFrame(context.Background(), Options{Pid: c.Process.Pid, Avoid: []Range{{1 << 33, 1 << 40}}})
	must(t, err)
	_, err = in.Write([]byte("\n"))
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	must(t, p.WaitExec(ctx))
	return p, c
}

// TestFrame turns a frame into a process of two threads and a child: made by
// remote clone3, each with registers of its own, released and committed.
func TestFrame(t *testing.T) {
	tr := newTracer(t)
	p, _ := newFrame(t, tr)
	s, err := p.Scratch()
	must(t, err)
	if s.base > 1<<33 && s.base < 1<<40 {
		t.Fatalf("scratch at %#x, in a range to avoid", s.base)
	}
	must(t, p.AvoidSignals(sigBit(int(unix.SIGWINCH))))

	// clone3(set_tid) of a thread and of a child, both born traced.
	const cloneArgs = 88
	args := func(flags uint64) uint64 {
		b := make([]byte, cloneArgs)
		binary.LittleEndian.PutUint64(b, flags|unix.CLONE_PTRACE)
		if flags&unix.CLONE_THREAD == 0 {
			binary.LittleEndian.PutUint64(b[32:], uint64(unix.SIGCHLD))
		}
		at, err := s.Put(b)
		must(t, err)
		return at
	}
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	calls := []Call{
		Syscall(unix.SYS_CLONE3, args(thread), cloneArgs),
		Syscall(unix.SYS_CLONE3, args(0), cloneArgs),
	}
	must(t, p.Run(p.Leader(), calls))
	must(t, Check(calls))
	threads, err := p.AdoptThreads([]int{int(calls[0].Ret)})
	must(t, err)
	child, err := p.AdoptChild(int(calls[1].Ret))
	must(t, err)

	// A page of code in the final layout: store rbx at [r12], then pause.
	const code, data = 0x30000000000, 0x30000002000
	calls = []Call{
		Mmap(code, pageSize, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0),
		Mmap(data, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0),
		Munmap(FrameBase, pageSize),
	}
	prog := []byte{0x49, 0x89, 0x1c, 0x24, 0xb8, 34, 0, 0, 0, 0x0f, 5, 0xeb, 0xf7}
	for i, q := range []*Process{p, child} {
		must(t, q.Run(q.Leader(), calls))
		must(t, Check(calls))
		must(t, q.WriteForce(code, prog))
		for j, th := range q.Threads() {
			r, err := th.Registers()
			must(t, err)
			r.Rip, r.Rbx, r.R12, r.OrigRax = code, uint64(100+10*i+j), data+uint64(8*j), ^uint64(0)
			must(t, th.SetRegisters(r))
			must(t, th.SetSignalMask(1<<9))
		}
	}
	if len(threads) != 1 || len(p.Threads()) != 2 || len(child.Threads()) != 1 {
		t.Fatal("threads", len(p.Threads()), len(child.Threads()))
	}
	if p.Commit() == nil {
		t.Fatal("Commit before Release")
	}
	pid, childPid := p.Pid, child.Pid
	for _, q := range []*Process{p, child} {
		must(t, q.Release())
		must(t, q.Commit())
		must(t, q.Detach())
	}
	defer func() { _ = unix.Kill(childPid, unix.SIGKILL) }()
	time.Sleep(50 * time.Millisecond)
	for i, id := range []int{pid, childPid} {
		q := &Process{Pid: id, memFD: -1, Tracer: tr}
		b := make([]byte, 16)
		must(t, q.Read(data, b))
		if v := leUint64(b); v != uint64(100+10*i) {
			t.Errorf("process %d stored %d", i, v)
		}
		if v := leUint64(b[8:]); i == 0 && v != 101 {
			t.Errorf("the thread stored %d", v)
		}
		st, err := readStatus(id, id)
		must(t, err)
		if st.State != 'S' || st.TracerPid != 0 || st.Signals.Blocked != 1<<9 {
			t.Errorf("%+v", st)
		}
		maps, err := readMaps(id)
		must(t, err)
		for _, m := range maps {
			if m.Start == s.base || m.Start == FrameBase {
				t.Errorf("%+v is left", m)
			}
		}
	}
}

// TestFrameDiesWithItsTracer: until Commit.
func TestFrameDiesWithItsTracer(t *testing.T) {
	tr := New()
	p, c := newFrame(t, tr)
	must(t, p.Run(p.Leader(), []Call{getpid}))
	must(t, tr.Close())
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("exited by itself")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("lives on")
	}
}

func TestFrameThatExecsSomethingElse(t *testing.T) {
	needRoot(t)
	tr := newTracer(t)
	c := exec.Command("/bin/sh", "-c", "echo up; read x; exec sleep 30")
	in := startShell(t, c)
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	p, err := tr.AttachFrame(context.Background(), Options{Pid: c.Process.Pid})
	must(t, err)
	_, _ = in.Write([]byte("\n"))
	if err := p.WaitExec(context.Background()); !errors.Is(err, ErrNotFrame) {
		t.Fatal(err)
	}
	must(t, p.Leave())
}

func TestFrameThatNeverExecs(t *testing.T) {
	needRoot(t)
	tr := newTracer(t)
	c := exec.Command("/bin/sh", "-c", "echo up; read x; exit 3")
	in := startShell(t, c)
	defer func() { _ = c.Wait() }()
	p, err := tr.AttachFrame(context.Background(), Options{Pid: c.Process.Pid})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := p.WaitExec(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	_, _ = in.Write([]byte("\n"))
	if err := p.WaitExec(context.Background()); !errors.Is(err, ErrExited) {
		t.Fatal(err)
	}
}
