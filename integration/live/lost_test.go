// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestLostAfterMove: what a copy sends first, and the network loses, it sends again as
// soon as the original would have, and not after one second, or three, as a new connection.
func TestLostAfterMove(t *testing.T) {
	const sends, cut, within = 400 * time.Millisecond, 450 * time.Millisecond, 700 * time.Millisecond
	i := image.Python
	i.Name, i.Files = "mig.test/asked:1", map[string]string{"/asked.py": asked}
	w := newWorld(t, daemon.V24, i)
	s := w.asked(i)
	e := s.connect("x", families(9000)["4"])
	s.do("put('x', 4000)") // a round trip is measured
	e.take(4000)
	from, to := w.alpha, w.beta
	for range 2 {
		w.mustMove(from, "server", to.IP, "--tcp", "keep")
		from, to = to, from
		s.do("__import__('threading').Timer(%f, lambda: put('x', 1000)).start()", sends.Seconds())
		asked := time.Now()
		if err := from.Disconnect(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(cut - time.Since(asked)) // what is sent meanwhile is lost
		if err := from.Connect(); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		e.take(1000)
		if after := time.Since(back); after > within {
			t.Errorf("it is there %s after the cable", after)
		}
	}
}
