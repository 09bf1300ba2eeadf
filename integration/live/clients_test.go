// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// listens waits until somebody answers at an address.
func (w *world) listens(address string) {
	w.t.Helper()
	waitFor(w.t, 20*time.Second, "somebody listens at "+address, func() bool {
		c, err := w.dial(w.t.Context(), address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// load is clients that each ask one question after the other and note the longest
// time without an answer.
type load struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu sync.Mutex
	// Below: guarded by mu.
	answers int
	longest time.Duration
	err     error // of the client that failed first
}

// patience is how long a client waits for an answer.
const patience = 30 * time.Second

// ask has clients put questions over connections of their own, with a pause after
// each answer.
func (w *world) ask(clients int, pause time.Duration, dial func(context.Context) (net.Conn, error), question func(c net.Conn, r *bufio.Reader, client, n int) error) *load {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stop: cancel}
	w.t.Cleanup(l.end)
	for client := range clients {
		c, err := dial(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		l.done.Go(func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for n := 0; ctx.Err() == nil; n++ {
				begun := time.Now()
				_ = c.SetDeadline(begun.Add(patience))
				if !l.note(begun, question(c, r, client, n)) {
					return
				}
				time.Sleep(pause)
			}
		})
	}
	return l
}

// note counts an answer; false: the client has failed.
func (l *load) note(begun time.Time, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && l.err == nil {
		l.err = err
	}
	l.answers++
	l.longest = max(l.longest, time.Since(begun))
	return err == nil
}

// end ends the clients.
func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// reset begins a measurement.
func (l *load) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest, l.answers = 0, 0
}

// seen is the longest time without an answer, and how many there were, since
// reset.
func (l *load) seen() (longest time.Duration, answers int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.longest, l.answers, l.err
}

// echoes asks a Redis to repeat what no other question says.
func echoes(c net.Conn, r *bufio.Reader, client, n int) error {
	want := fmt.Sprintf("%d-%d", client, n)
	if _, err := fmt.Fprintf(c, "*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n", len(want), want); err != nil {
		return err
	}
	head, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	body, err := r.ReadString('\n')
	if err == nil && body != want+"\r\n" {
		err = fmt.Errorf("answer %q %q to %q", head, body, want)
	}
	return err
}

// podRedis serves whoever comes.
var podRedis = []string{"redis-server", "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", "--dir", "/tmp"}

// measured moves a container there and back while clients are at work, and compares
// the silence that they see with the time for which mig stopped the container.
func (w *world) measured(l *load, id string, moves int) {
	w.t.Helper()
	from, to := w.alpha, w.beta
	for range moves {
		l.reset()
		w.answered(l, 100)
		l.reset()
		r := w.mustMove(from, id, to.IP, "--tcp", "keep")
		w.answered(l, 500)
		longest, _, err := l.seen()
		if err != nil {
			w.t.Fatalf("a client: %v", err)
		}
		silence := float64(longest.Microseconds()) / 1000
		w.t.Logf("the clients were without an answer for %.1f ms, %.2f times as long as mig had stopped it", silence, silence/r.DowntimeMS)
		from, to = to, from
	}
}

// answered waits for so many answers more.
func (w *world) answered(l *load, n int) {
	w.t.Helper()
	_, before, _ := l.seen()
	waitFor(w.t, patience, fmt.Sprintf("%d answers", n), func() bool {
		_, answers, err := l.seen()
		return err != nil || answers >= before+n
	})
}

// TestRedisClientsGoOn: clients of a Redis, over IPv4 and IPv6, do not notice that
// it moves.
func TestRedisClientsGoOn(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	w.runPod(image.Redis, "redis", podRedis...)
	for _, a := range []string{podIP4 + ":6379", "[" + podIP6 + "]:6379"} {
		w.listens(a)
		l := w.ask(25, time.Millisecond, func(ctx context.Context) (net.Conn, error) { return w.dial(ctx, a) }, echoes)
		w.measured(l, "redis", 2)
		l.end()
	}
}
