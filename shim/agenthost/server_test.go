// SPDX-License-Identifier: Apache-2.0

package agenthost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	app "github.com/io-mig/mig/agent"
	"github.com/io-mig/mig/spec/agent"
)

const patience = 20 * time.Second

// listener is an application that notes what its hooks are told.
type listener struct {
	t      *testing.T
	client *app.Client
	said   chan string
}

func dial(t *testing.T, dir string, before func(context.Context, app.Event) error) *listener {
	t.Helper()
	a := &listener{t: t, said: make(chan string, 100)}
	c, err := app.Dial(app.Hooks{
		Path: filepath.Join(dir, agent.Socket),
		Before: func(ctx context.Context, e app.Event) error {
			a.said <- fmt.Sprintf("before %s move=%v", e.ID, e.Move)
			if before != nil {
				return before(ctx, e)
			}
			return nil
		},
		After: func(o app.Outcome) {
			a.said <- strings.TrimSpace(fmt.Sprintf("after %s restored=%v %s", o.Event, o.Restored, o.Reason))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.client = c
	t.Cleanup(func() { c.Close() })
	return a
}

func (a *listener) hears(want string) {
	a.t.Helper()
	select {
	case got := <-a.said:
		if got != want {
			a.t.Errorf("%q, want %q", got, want)
		}
	case <-time.After(patience):
		a.t.Fatalf("silence, want %q", want)
	}
}

func server(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "agent")
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestGoesOn: the original hears that it is the original, again and again.
func TestGoesOn(t *testing.T) {
	s := server(t, Options{})
	a, b := dial(t, s.opts.Dir, nil), dial(t, s.opts.Dir, nil)
	generation := a.client.Generation()
	if generation == "" || generation != b.client.Generation() {
		t.Errorf("generations %q and %q", generation, b.client.Generation())
	}
	for i := range 50 {
		event := fmt.Sprint("e", i)
		if err := s.Quiesce(context.Background(), event, agent.KindMove, patience); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("unix", filepath.Join(s.opts.Dir, agent.Socket)); err == nil {
			t.Error("somebody could connect while the state is taken")
		}
		if err := s.Resume(""); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*listener{a, b} {
			x.hears("before " + event + " move=true")
			x.hears("after " + event + " restored=false")
		}
	}
	if a.client.Generation() != generation {
		t.Error("the generation has changed")
	}
}

// TestRestored: the copy finds another shim in the place of its own.
func TestRestored(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	old := server(t, Options{Dir: dir})
	a := dial(t, dir, nil)
	generation := a.client.Generation()
	if err := old.Quiesce(context.Background(), "e", agent.KindCheckpoint, patience); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	server(t, Options{Dir: dir, Restored: true})
	a.hears("before e move=false")
	a.hears("after e restored=true")
	if g := a.client.Generation(); g == generation || len(g) != 32 {
		t.Errorf("generation %q after %q", g, generation)
	}
}

// TestForced: who was not asked sees by the generation that it is a copy.
func TestForced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	old := server(t, Options{Dir: dir})
	a := dial(t, dir, nil)
	old.Force("e")
	if err := old.Resume(""); err != nil {
		t.Fatal(err)
	}
	old.Force("f")
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	server(t, Options{Dir: dir, Restored: true})
	a.hears("after  restored=true")
}

// TestHangs: a hook that does not return is named, and all hear that the event
// has failed.
func TestHangs(t *testing.T) {
	s := server(t, Options{})
	a := dial(t, s.opts.Dir, func(ctx context.Context, _ app.Event) error {
		<-ctx.Done()
		time.Sleep(time.Second) // ignores its time
		return nil
	})
	b := dial(t, s.opts.Dir, nil)
	err := s.Quiesce(context.Background(), "e", agent.KindCheckpoint, 300*time.Millisecond)
	if want := fmt.Sprintf("pid %d does not answer", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v lacks %q", err, want)
	}
	if err := s.Resume("too late"); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*listener{a, b} {
		x.hears("before e move=false")
		x.hears("after e restored=false too late")
	}
}

func TestRefuses(t *testing.T) {
	s := server(t, Options{})
	a := dial(t, s.opts.Dir, func(context.Context, app.Event) error { return errors.New("50 % done = busy") })
	err := s.Quiesce(context.Background(), "e", agent.KindCheckpoint, patience)
	if err == nil || !strings.Contains(err.Error(), "it refuses: 50 % done = busy") {
		t.Errorf("%v", err)
	}
	if err := s.Resume("refused"); err != nil {
		t.Fatal(err)
	}
	a.hears("before e move=false")
	a.hears("after e restored=false refused")
}

// TestEnds: an application that ends while it is asked holds nobody up.
func TestEnds(t *testing.T) {
	s := server(t, Options{})
	c, err := net.Dial("unix", filepath.Join(s.opts.Dir, agent.Socket))
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	fmt.Fprintln(c, agent.New(agent.Hello, "version", agent.Version))
	if l, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(l, agent.Welcome) {
		t.Fatalf("%q, %v", l, err)
	}
	go func() {
		if l, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(l, agent.Prepare) {
			t.Errorf("%q, %v", l, err)
		}
		c.Close()
	}()
	if err := s.Quiesce(context.Background(), "e", agent.KindCheckpoint, patience); err != nil {
		t.Error(err)
	}
}

// TestOwnRequests: only what is allowed, and its failure is told once.
func TestOwnRequests(t *testing.T) {
	begun := make(chan func(error), 1)
	s := server(t, Options{Migrate: func(host string, failed func(error)) error {
		if host != "b" {
			return fmt.Errorf("not to %s", host)
		}
		begun <- failed
		return nil
	}})
	a := dial(t, s.opts.Dir, nil)
	var denied *app.DeniedError
	if err := a.client.Checkpoint(context.Background(), false); !errors.As(err, &denied) {
		t.Errorf("a checkpoint: %v", err)
	}
	if err := a.client.Migrate(context.Background(), "c"); !errors.As(err, &denied) || denied.Reason != "not to c" {
		t.Errorf("a move to c: %v", err)
	}
	if err := a.client.Migrate(context.Background(), "b"); err != nil {
		t.Fatal(err)
	}
	(<-begun)(errors.New("no route"))
	a.hears("after  restored=false no route")
}

// TestHostile: what a container may send ends its connection and nothing else.
func TestHostile(t *testing.T) {
	s := server(t, Options{})
	path := filepath.Join(s.opts.Dir, agent.Socket)
	for _, text := range []string{
		"\n", "GET / HTTP/1.0\r\n\r\n", "HELLO version=2\n", strings.Repeat("x", 2*agent.MaxLine), "HELLO version=1\nBYE\n",
		"HELLO version=1\nREADY event=\nREADY event=x\n\x00\n",
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Error(err)
		}
		c.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 4096)
		for err == nil {
			_, err = c.Read(b)
		}
		if os.IsTimeout(err) {
			t.Errorf("%.20q is not cut off", text)
		}
		c.Close()
	}
	var idle []net.Conn
	for range 2 * maxConns {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	for _, c := range idle {
		c.Close()
	}
	// The last of them is accepted behind all others.
	for end := time.Now().Add(patience); ; {
		c, err := app.Dial(app.Hooks{Path: path})
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := s.until(context.Background(), func() bool { return len(s.conns) == 0 }); err != nil {
		t.Fatal(err)
	}
	a := dial(t, s.opts.Dir, nil)
	if err := s.Quiesce(context.Background(), "e", agent.KindCheckpoint, patience); err != nil {
		t.Error(err)
	}
	a.hears("before e move=false")
}
