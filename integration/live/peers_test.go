// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/pattern"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// TestClientsLeaveDuringMove: clients end their streams, close and reset their
// connections, and open new ones, at any moment of a move. The server learns of each
// of that, and nobody of the move.
func TestClientsLeaveDuringMove(t *testing.T) {
	w := newPod(t, image.Redis, 6379, traffic.RedisCommand...)
	address := podIP4 + ":6379"
	from, to := w.alpha, w.beta
	within := milliseconds(w.mustMove(from, "server", to.IP, "--tcp", "keep").TotalMS)
	for range 4 {
		from, to = to, from
		var old []net.Conn
		for range 12 {
			c, err := w.dial(t.Context(), address)
			if err == nil {
				err = ping(c)
			}
			if err != nil {
				t.Fatal(err)
			}
			old = append(old, c)
		}
		results := make(chan error, 2*len(old))
		for i, c := range old {
			go func() {
				time.Sleep(rand.N(within)) // the moment is the point
				results <- leave(c, i%3)
			}()
			go func() {
				time.Sleep(rand.N(within))
				results <- w.visit(address)
			}()
		}
		r := w.mustMove(from, "server", to.IP, "--tcp", "keep")
		for range cap(results) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		within = milliseconds(r.TotalMS)
		waitFor(t, 20*time.Second, "the server has no client but the one who asks", func() bool {
			return strings.Count(w.answers(podIP4, "CLIENT", "LIST"), "id=") == 1
		})
	}
}

// ping asks a Redis whether it is there.
func ping(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	b := make([]byte, 7)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "+PONG\r\n" {
		return fmt.Errorf("answer %q: %w", b, err)
	}
	return nil
}

// leave ends a connection in one of three ways.
func leave(c net.Conn, how int) error {
	defer c.Close()
	if err := ping(c); err != nil {
		return fmt.Errorf("an old client: %w", err)
	}
	switch t := c.(*net.TCPConn); how {
	case 0: // ends its stream, and is told of the end of the other one
		if err := t.CloseWrite(); err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			return fmt.Errorf("behind the end of the stream %d bytes come, and %w", n, err)
		}
	case 1:
		return t.SetLinger(0) // a reset
	}
	return nil
}

// visit is a client that comes, asks and goes.
func (w *world) visit(address string) error {
	c, err := w.dial(context.Background(), address)
	if err != nil {
		return fmt.Errorf("a new client: %w", err)
	}
	defer c.Close()
	if err := ping(c); err != nil {
		return fmt.Errorf("a new client: %w", err)
	}
	return nil
}

// TestClosedWindow: a client that reads nothing for the time of several moves gets
// every byte when it reads on.
func TestClosedWindow(t *testing.T) {
	w := newPod(t, talk(t), traffic.TalkPort)
	const size = 64 << 20
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return w.dial(ctx, address) }}}
	r, err := c.Get(fmt.Sprintf("http://%s:8080/stream/%d", podIP4, size))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	check := &pattern.Checker{}
	if _, err := io.CopyN(check, r.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	// The server has filled the client's buffer, and its own.
	waitFor(t, 20*time.Second, "the window is closed", func() bool {
		return strings.Contains(w.alpha.inNetwork(t, "server", "ss -tnoi state established '( sport = :8080 )'"), "persist")
	})
	from, to := w.alpha, w.beta
	for range 2 {
		w.mustMove(from, "server", to.IP, "--tcp", "keep")
		from, to = to, from
	}
	if n, err := io.Copy(check, r.Body); err != nil || n != size-1<<20 {
		t.Fatalf("%d bytes more of %d: %v", n, size-1<<20, err)
	}
}

// TestCutCableKeepsConnections: the destination's cable is out at any moment of a
// move, and in again. One copy runs then, and clients go on with it.
func TestCutCableKeepsConnections(t *testing.T) {
	w := newPod(t, image.Redis, 6379, traffic.RedisCommand...)
	address := podIP4 + ":6379"
	var clients []net.Conn
	for range 10 {
		c, err := w.dial(t.Context(), address)
		if err == nil {
			err = ping(c)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	on, off := w.alpha, w.beta
	within := milliseconds(w.mustMove(on, "server", off.IP, "--tcp", "keep").TotalMS)
	on, off = off, on
	for range 2 {
		done := make(chan error, 1)
		go func() {
			_, err := on.move(context.Background(), "server", off.IP, "--tcp", "keep", "--timeout", "10s")
			done <- err
		}()
		time.Sleep(rand.N(within)) // the moment is the point
		if err := off.Disconnect(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // for so long it is out
		if err := off.Connect(); err != nil {
			t.Fatal(err)
		}
		t.Logf("mig migrate says %v", <-done)
		waitFor(t, settleWithin, "one copy, and nothing else", func() bool {
			if on.status("server") != "RUNNING" {
				on, off = off, on
			}
			return off.status("server") != "RUNNING" && !on.onItsWay() && !off.onItsWay() && on.status("server") == "RUNNING"
		})
		off.d.Remove("server") // if it was decided without its coordinator
		for _, c := range clients {
			if err := ping(c); err != nil {
				t.Fatalf("a client, the copy is on %s: %v", on.Name, err)
			}
		}
	}
}

// TestDatagramsDuringMove: every datagram of a client's is answered, whenever it comes.
// One that comes at the moment at which they begin to be held may be answered twice.
func TestDatagramsDuringMove(t *testing.T) {
	w := newPod(t, talk(t), traffic.TalkPort)
	for _, address := range []string{podIP4 + ":8080", "[" + podIP6 + "]:8080"} {
		c, err := w.dialBy(t.Context(), "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		asked := make(chan int)
		stop := make(chan struct{})
		go func() {
			n := 0
			defer func() { asked <- n }()
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				if _, err := fmt.Fprint(c, n); err != nil {
					t.Errorf("datagram %d: %v", n, err)
					return
				}
				n++
			}
		}()
		answers := make(chan int, 1<<16)
		go func() {
			b := make([]byte, 100)
			for {
				n, err := c.Read(b)
				if err != nil {
					return // it is closed
				}
				var which int
				if _, err := fmt.Sscan(string(b[:n]), &which); err != nil {
					t.Errorf("answer %q", b[:n])
				}
				answers <- which
			}
		}()
		w.mustMove(w.alpha, "server", w.beta.IP)
		w.mustMove(w.beta, "server", w.alpha.IP)
		close(stop)
		all := <-asked
		got := map[int]int{}
		for len(got) < all {
			select {
			case n := <-answers:
				got[n]++
			case <-time.After(5 * time.Second):
				t.Fatalf("%d of %d datagrams were not answered", all-len(got), all)
			}
		}
		twice := 0
		for _, times := range got {
			if times != 1 {
				twice++
			}
		}
		if t.Logf("%d datagrams, %d were answered twice", all, twice); twice > 10 {
			t.Errorf("%d of %d datagrams were answered twice", twice, all)
		}
	}
}
