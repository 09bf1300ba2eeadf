// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// Asking is clients that each ask one question after the other, over a connection
// of their own, and note the longest time without an answer. It is a Load.
type Asking struct {
	// Enough is for how many answers End waits.
	Enough int

	stop context.CancelFunc
	done sync.WaitGroup

	mu sync.Mutex
	// Below: guarded by mu.
	answers int
	seen    Seen
	err     error // of the client that failed first
}

// Question asks the nth question of a client and reads the answer.
type Question func(c net.Conn, r *bufio.Reader, client, n int) error

// Ask has so many clients ask, with a pause after each answer.
func Ask(ctx context.Context, clients int, pause time.Duration, dial func(context.Context) (net.Conn, error), question Question) (*Asking, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &Asking{Enough: 200, stop: cancel}
	for client := range clients {
		c, err := dial(ctx)
		if err != nil {
			_ = a.Close()
			return nil, err
		}
		a.done.Go(func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for n := 0; ctx.Err() == nil; n++ {
				begun := time.Now()
				_ = c.SetDeadline(begun.Add(patience))
				if !a.note(begun, question(c, r, client, n)) {
					return
				}
				time.Sleep(pause)
			}
		})
	}
	return a, nil
}

// note counts an answer; false: the client has failed.
func (a *Asking) note(begun time.Time, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
	a.seen.blame(err)
	a.answers++
	a.seen.Silence = max(a.seen.Silence, time.Since(begun))
	return err == nil
}

// Begin is Load's.
func (a *Asking) Begin(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen, a.answers = Seen{}, 0
	return nil
}

// Answered waits for so many answers more, from now on, or until a client has
// failed: see Err.
func (a *Asking) Answered(n int) error {
	a.mu.Lock()
	want := a.answers + n
	a.mu.Unlock()
	return Client{}.await(context.Background(), "clients have answers", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.err != nil || a.answers >= want
	})
}

// Err is what the client that failed first has met.
func (a *Asking) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// End is Load's.
func (a *Asking) End() (Seen, error) {
	if err := a.Answered(a.Enough); err != nil {
		return Seen{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := a.seen
	seen.Until = time.Now()
	return seen, nil
}

// Close is Load's. It may be called several times.
func (a *Asking) Close() error {
	a.stop()
	a.done.Wait()
	return nil
}
