// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/outgoing"
	"github.com/io-mig/mig/spec/wire"
)

// TestReplayedToken: a host of the same authority has seen the token, which
// travels in the clear, and brings connections of its own to the move of others:
// before the source's, for data, and while memory is behind, for what the copy
// pulls. It is turned away and told nothing, and the move goes on.
func TestReplayedToken(t *testing.T) {
	w := newWorld(t, "32")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	t.Run("before the source", func(t *testing.T) {
		w.t = t
		before, _, _ := from.report()
		token := wire.NewToken()
		to, arrived := w.destination(w.root.Context(), token)
		w.turnedAway(token, wire.Data)
		w.turnedAway(token, wire.Urgent)
		from = w.settled(from, to, before, w.move(w.root.Context(), from, w.address(token)), arrived, token)
		if from != to {
			t.Error("it did not move")
		}
	})
	t.Run("while memory is behind", func(t *testing.T) {
		w.t = t
		fault(t, "stop source: left")
		defer fault(t, "")
		before, _, _ := from.report()
		token, to, moved, arrived := w.postCopy(from)
		pid := w.stopped(token, true)
		fault(t, "")
		w.turnedAway(token, wire.Urgent)
		w.turnedAway(token, wire.Data)
		w.must(unix.Kill(pid, unix.SIGCONT))
		from = w.settled(from, to, before, moved, arrived, token)
		if from != to {
			t.Error("it did not move")
		}
	})
	w.t = t
}

// turnedAway brings a connection as the stranger, and waits until it is closed.
func (w *world) turnedAway(token wire.Token, p wire.Purpose) {
	w.t.Helper()
	conn, err := outgoing.Dial(w.root.Context(), address.Move{Host: w.addr, Token: token, TLS: w.stranger}, p)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	hello := wire.Greeting{Count: 1, Purpose: p, Token: token}
	_, _ = conn.Write(hello.Append(nil)) // it may be closed by now
	w.must(conn.SetReadDeadline(time.Now().Add(patience)))
	var b [1]byte
	if n, err := conn.Read(b[:]); err == nil || isTimeout(err) {
		w.t.Errorf("a stranger's %s connection was read from: %d bytes, %v", p, n, err)
	}
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool }) //nolint:errorlint // as net.Conn returns it
	return ok && t.Timeout()
}
