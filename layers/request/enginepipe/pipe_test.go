// SPDX-License-Identifier: Apache-2.0

package enginepipe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request/job"
)

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]*Conn
	for i, fd := range fds {
		if c[i], err = NewConn(os.NewFile(uintptr(fd), "test")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c[i].Close() })
	}
	return c[0], c[1]
}

func openFDs(t *testing.T) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

func TestMessageWithFiles(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec := []byte(strings.Repeat("s", 1<<20)) // more than the socket's buffer
	sent := make(chan error, 1)
	go func() { sent <- a.Send(Message{Job: &job.Job{Container: "web", Spec: spec}}, time.Minute, w) }()
	m, files, err := b.Receive()
	if err != nil || len(files) != 1 || m.Job.Container != "web" || len(m.Job.Spec) != len(spec) {
		t.Fatalf("received %d files, %v", len(files), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	w.Close()
	flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Error("a received descriptor survives exec")
	}
	fmt.Fprint(files[0], "hello")
	files[0].Close()
	if got, _ := io.ReadAll(r); string(got) != "hello" {
		t.Errorf("read %q", got)
	}
}

// TestBadStreams sends what no peer of ours sends. Descriptors that come with
// it must not stay open.
func TestBadStreams(t *testing.T) {
	frame := func(n uint32, body string) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, n), body...)
	}
	before := openFDs(t)
	for name, b := range map[string][]byte{
		"huge": frame(1<<31, ""), "empty": frame(0, ""), "torn head": {1, 2}, "torn body": frame(10, "{}"), "no json": frame(3, "{]}"),
	} {
		t.Run(name, func(t *testing.T) {
			a, c := pair(t)
			if _, _, err := a.sock.WriteMsgUnix(b, unix.UnixRights(0, 1), nil); err != nil {
				t.Fatal(err)
			}
			a.Close()
			_, files, err := c.Receive()
			if err == nil || errors.Is(err, io.EOF) || len(files) != 0 {
				t.Errorf("error %v, %d files", err, len(files))
			}
		})
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors were open before, %d after", before, after)
	}
	a, c := pair(t)
	a.Close()
	if _, _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}

// TestOver: the peer's end shows at once, before its last messages were received.
func TestOver(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(Message{Cancel: true}, time.Second); err != nil {
		t.Fatal(err)
	}
	if b.Over() {
		t.Error("the peer is there, and is said to be gone")
	}
	if err := (&reporter{conn: b}).Supervised(); err != nil {
		t.Error(err)
	}
	a.Close()
	if !b.Over() {
		t.Error("the peer has gone, and is said to be there")
	}
	if err := (&reporter{conn: b}).Supervised(); !errors.Is(err, ErrSupervisorGone) {
		t.Errorf("the supervisor has gone: %v", err)
	}
	if m, _, err := b.Receive(); err != nil || !m.Cancel {
		t.Errorf("the look has taken a message: %v, %v", m, err)
	}
	b.Close()
	if !b.Over() {
		t.Error("this end is closed, and the peer is said to be there")
	}
}

func TestNotASocket(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewConn(f); err == nil {
		t.Error("/dev/null is taken for a socket")
	}
}

func validJob() *job.Job {
	return &job.Job{Kind: job.Restore, Container: "c", Image: "i", InitPid: 1}
}

// stuck has an engine serve a job that does not end, and returns its supervisor's end
// and what Serve does.
func stuck(t *testing.T, j *job.Job, p patience) (supervisor *Conn, served chan error) {
	t.Helper()
	a, b := pair(t)
	if err := a.Send(Message{Job: j}, time.Second); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	begun := make(chan struct{})
	served = make(chan error, 1)
	go func() {
		served <- serve(b, func(context.Context, *job.Job, []*os.File, job.Reporter) error {
			close(begun)
			<-release
			return nil
		}, p)
	}()
	<-begun
	return a, served
}

// abandoned waits for an engine to give up, because of something.
func abandoned(t *testing.T, served <-chan error, because error) {
	t.Helper()
	select {
	case err := <-served:
		if !errors.Is(err, ErrAbandoned) || !errors.Is(err, because) {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the engine goes on")
	}
}

// TestAbandonedJob: the supervisor is gone and the work ignores it; Serve ends
// all the same, so that the engine can exit.
func TestAbandonedJob(t *testing.T) {
	supervisor, served := stuck(t, validJob(), patience{end: 50 * time.Millisecond, alone: time.Minute})
	supervisor.Close()
	abandoned(t, served, ErrSupervisorGone)
}

// TestDecidedJob: a job that cannot be undone any more is not given up because somebody
// has cancelled it, but because nothing moves.
func TestDecidedJob(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(Message{Job: validJob()}, time.Second); err != nil {
		t.Fatal(err)
	}
	const end = 100 * time.Millisecond
	var moved atomic.Uint64
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	served := make(chan error, 1)
	go func() {
		served <- serve(b, func(_ context.Context, _ *job.Job, _ []*os.File, r job.Reporter) error {
			r.(job.Decider).Decided(moved.Load)
			<-release
			return nil
		}, patience{end: end, alone: time.Minute})
	}()
	if m, _, err := a.Receive(); err != nil || !m.Decided {
		t.Fatalf("the supervisor hears %+v, %v", m, err)
	}
	if err := a.Send(Message{Cancel: true}, time.Second); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); time.Since(begun) < 10*end; time.Sleep(end / 10) {
		moved.Add(1)
		select {
		case err := <-served:
			t.Fatalf("the engine ends while something moves: %v", err)
		default:
		}
	}
	abandoned(t, served, context.Canceled)
}

// TestDeadContainer: when its supervisor is dead and somebody has killed its container,
// an engine does not go on with a job that does not end: it would keep the dead from
// being removed. As long as a process lives, it may be one that must not go on alone,
// and a supervisor that lives sees to the end itself.
func TestDeadContainer(t *testing.T) {
	const soon = 200 * time.Millisecond
	j := validJob()
	j.Freezer = t.TempDir()
	below := filepath.Join(j.Freezer, "below")
	procs := filepath.Join(below, "cgroup.procs")
	if err := errors.Join(os.Mkdir(below, 0o700), os.WriteFile(filepath.Join(j.Freezer, "cgroup.procs"), nil, 0o600), os.WriteFile(procs, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	supervisor, served := stuck(t, j, patience{end: time.Hour, alone: soon})
	goesOn := func(why string) {
		t.Helper()
		select {
		case err := <-served:
			t.Fatalf("the engine ends though %s: %v", why, err)
		case <-time.After(3 * soon):
		}
	}
	if err := supervisor.Send(Message{Cancel: true}, time.Second); err != nil {
		t.Fatal(err)
	}
	goesOn("its supervisor lives")
	if err := os.WriteFile(procs, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	supervisor.Close()
	goesOn("a process lives")
	if err := os.Truncate(procs, 0); err != nil {
		t.Fatal(err)
	}
	abandoned(t, served, context.Canceled)
}

func TestServeRefuses(t *testing.T) {
	for want, m := range map[string]Message{
		"not a job":       {Cancel: true},
		"build":           {Job: validJob(), Build: "another"},
		"unknown kind":    {Job: &job.Job{Kind: "x"}},
		"1 descriptors, ": {Job: func() *job.Job { j := validJob(); j.Files = []string{"frame"}; return j }()},
	} {
		a, b := pair(t)
		if err := a.Send(m, time.Second); err != nil {
			t.Fatal(err)
		}
		err := ServeConn(b, func(context.Context, *job.Job, []*os.File, job.Reporter) error {
			t.Error("the work was begun")
			return nil
		})
		end, _, rerr := a.Receive()
		if err == nil || rerr != nil || end.End == nil || !strings.Contains(end.End.Failure.Text, want) {
			t.Errorf("%s: %v, %v", want, err, rerr)
		}
	}
}

// TestSupervisorThatDoesNotRead must not hold up the work.
func TestSupervisorThatDoesNotRead(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(Message{Job: validJob()}, time.Second); err != nil {
		t.Fatal(err)
	}
	worked := make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- ServeConn(b, func(_ context.Context, _ *job.Job, _ []*os.File, r job.Reporter) error {
			p := job.Progress{Warnings: []string{strings.Repeat("w", 1<<20)}}
			for range 1000 {
				r.Report(p)
			}
			close(worked)
			return nil
		})
	}()
	select {
	case <-worked:
	case <-time.After(5 * time.Second):
		t.Fatal("the work was held up")
	}
	for { // now read it all
		m, _, err := a.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.End != nil {
			break
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
