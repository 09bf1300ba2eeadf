// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/traffic"
)

// TestNobodyIsTold: during moves under load no reset and no "unreachable" leaves
// either host, whether for connections that stand, for new ones or for datagrams;
// after each switch the destination says where the container's addresses are.
func TestNobodyIsTold(t *testing.T) {
	w := newPod(t, talk(t), traffic.TalkPort)
	cables := w.capture("the network between the hosts", w.lab.Cables())
	captures := []*capture{cables, w.capture("alpha", w.alpha.Host), w.capture("beta", w.beta.Host)}
	// Hosts have connections of their own, between each other. And what a client says of
	// a segment that was sent again, of a connection that has ended for it, is the
	// client's.
	own := map[string]bool{w.alpha.IP: true, w.beta.IP: true}
	client := map[string]bool{w.client.IP: true, clientIP6: true}
	bad := func(since time.Time) (list []notice) {
		for _, c := range captures {
			for _, n := range c.of(since, isReset, isUnreachable) {
				from, to := n.from.Addr().String(), n.to.Addr().String()
				if !client[from] && !(own[from] && own[to]) {
					list = append(list, n)
				}
			}
		}
		return list
	}
	w.resetsAreSeen(captures)

	begun := time.Now()
	stop := w.everyLoad(traffic.TalkPort)
	from, to := w.alpha, w.beta
	for range 4 {
		at := time.Now()
		r := w.moveOnce(from, "server", to.IP, "--tcp", "keep")
		// From the cable of the new host, and from no other.
		for what, ip := range map[string]string{isARP: podIP4, isNA: podIP6} {
			waitFor(t, 10*time.Second, what+" of "+ip, func() bool {
				return len(announced(cables.of(at, what), ip, "to-"+to.Name)) > 0
			})
			// Before the switch it answers who asks whether the address is free.
			if list := announced(cables.of(r.switched(), what), ip, "to-"+from.Name); len(list) > 0 {
				t.Errorf("%s still announces %s: %v", from.Name, ip, list)
			}
		}
		from, to = to, from
	}
	list := bad(begun)
	stop()
	for _, n := range list {
		t.Error(n)
	}
	for _, c := range captures {
		if c.err != nil {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
}

// moveOnce moves a container under the load of new connections: while its program
// does not get to accepting them a move is refused, to be tried again.
func (w *world) moveOnce(from *host, args ...string) *report {
	w.t.Helper()
	for range 20 {
		r, err := from.move(w.t.Context(), args...)
		if err == nil {
			w.t.Logf("%s -> %v: stopped for %.2f ms", from.Name, args, r.DowntimeMS)
			return r
		}
		if !strings.Contains(err.Error(), "wait to be accepted") {
			w.t.Fatal(err)
		}
		w.t.Log(err)
	}
	w.t.Fatal("it has not accepted its connections in twenty tries")
	return nil
}

// announced are the announcements of an address that have come in at an interface.
func announced(list []notice, ip, where string) (found []notice) {
	for _, n := range list {
		if n.from.Addr().String() == ip && strings.HasPrefix(n.where, where+" ") {
			found = append(found, n)
		}
	}
	return found
}

// resetsAreSeen asks for what is not there: captures that see nothing of that prove
// nothing later.
func (w *world) resetsAreSeen(captures []*capture) {
	w.t.Helper()
	for _, ip := range []string{podIP4, podIP6} {
		before := time.Now()
		if _, err := w.dial(w.t.Context(), net.JoinHostPort(ip, "1")); err == nil {
			w.t.Fatal("somebody listens at port 1")
		}
		c, err := w.dialBy(w.t.Context(), "udp", net.JoinHostPort(ip, "1"))
		if err != nil {
			w.t.Fatal(err)
		}
		_, err = c.Write([]byte("x"))
		if err = errors.Join(err, c.Close()); err != nil {
			w.t.Fatal(err)
		}
		for _, seen := range []*capture{captures[0], captures[1]} {
			for _, what := range []string{isReset, isUnreachable} {
				waitFor(w.t, 10*time.Second, fmt.Sprintf("a packet that says %s from %s in %s", what, ip, seen.name), func() bool {
					return len(seen.of(before, what)) > 0
				})
			}
		}
	}
}

// everyLoad has clients of IPv4 and IPv6 at work with connections that stay, with
// new ones and with datagrams until stop, which fails the test if one has failed.
func (w *world) everyLoad(port int) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	var loads []traffic.Load
	failed := make(chan error, 16)
	repeat := func(pause time.Duration, what string, once func() error) {
		done.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := once(); err != nil && ctx.Err() == nil {
					failed <- fmt.Errorf("%s %d: %w", what, n, err)
					return
				}
				time.Sleep(pause)
			}
		})
	}
	for _, ip := range []string{podIP4, podIP6} {
		address := net.JoinHostPort(ip, fmt.Sprint(port))
		l, err := traffic.WebSocket(checkout(w.t)).Work(w.t.Context(), w.clients(), ip)
		if err == nil {
			err = l.Begin(w.t.Context())
		}
		if err != nil {
			w.t.Fatal(err)
		}
		loads = append(loads, l)
		client := http.Client{Timeout: patience, Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: func(ctx context.Context, _, a string) (net.Conn, error) { return w.dial(ctx, a) },
		}}
		repeat(2*time.Millisecond, "visitor of "+ip, func() error {
			r, err := client.Get("http://" + address + "/")
			if err != nil {
				return err
			}
			defer r.Body.Close()
			_, err = io.Copy(io.Discard, r.Body)
			return err
		})
		c, err := w.dialBy(w.t.Context(), "udp", address)
		if err != nil {
			w.t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, c) }() // until it is closed
		repeat(time.Millisecond, "datagram to "+ip, func() error { _, err := c.Write([]byte("x")); return err })
		w.t.Cleanup(func() { c.Close() })
	}
	return func() {
		w.t.Helper()
		for _, l := range loads {
			seen, err := l.End()
			if err = errors.Join(err, seen.Err(), l.Close()); err != nil {
				w.t.Errorf("a client: %v", err)
			}
		}
		cancel()
		done.Wait()
		close(failed)
		for err := range failed {
			w.t.Error(err)
		}
	}
}
