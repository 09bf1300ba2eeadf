// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/spec/wire"
)

// network is a wire between the hosts that can be cut.
type network struct {
	l  net.Listener
	to string

	mu sync.Mutex
	// Below: guarded by mu.
	conns []net.Conn
	down  bool
}

func newNetwork(t testing.TB, to string) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{l: l, to: to}
	t.Cleanup(func() { l.Close(); n.cut(true) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.join(c)
		}
	}()
	return n
}

func (n *network) join(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		c.Close()
		return
	}
	s, err := net.Dial("tcp", n.to)
	if err != nil {
		c.Close()
		return
	}
	n.conns = append(n.conns, c, s)
	pipe := func(a, b net.Conn) { _, _ = io.Copy(a, b); a.Close(); b.Close() }
	go pipe(c, s)
	go pipe(s, c)
}

// cut ends every connection; down: and makes no new ones.
func (n *network) cut(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
	for _, c := range n.conns {
		c.Close()
	}
	n.conns = nil
}

// TestCut cuts every connection when either engine has come to a step, with the
// engine stopped there meanwhile, so that it finds them cut. The hosts meet
// again, and exactly one copy runs.
func TestCut(t *testing.T) {
	w := newWorld(t, "1")
	n := newNetwork(t, w.addr)
	w.addr = n.l.Addr().String()
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	for _, step := range []string{
		"source: manifest sent", "destination: PREPARED sent", "source: residual", "source: sealing", "source: sealed", "destination: READY sent",
		"source: READY heard", "source: COMMITTED written", "source: COMMIT sent", "destination: COMMIT heard", "destination: COMMITTED written",
		"destination: let go", "destination: RUNNING written", "destination: RUNNING sent", "source: RUNNING heard", "source: MOVED written",
	} {
		if !t.Run(step, func(t *testing.T) {
			w.t = t
			from = w.cutAt(from, n, step)
		}) {
			break
		}
	}
	w.t = t
}

// cutAt moves a container whose connections are cut when an engine has come to a
// step.
func (w *world) cutAt(from *copy, n *network, step string) *copy {
	t := w.t
	fault(t, "stop "+step)
	defer fault(t, "")
	before, _, _ := from.report()
	token := wire.NewToken()
	to, arrived := w.destination(w.root.Context(), token)
	moved := w.move(w.root.Context(), from, w.address(token))
	pid := w.stopped(token, strings.HasPrefix(step, "source"))
	fault(t, "") // what is started from here on goes on
	n.cut(true)
	w.must(unix.Kill(pid, unix.SIGCONT))
	time.Sleep(100 * time.Millisecond) // so that resolving fails at first
	n.cut(false)
	return w.settled(from, to, before, moved, arrived, token)
}

// stopped waits until the engine of one side is stopped, and returns its pid.
func (w *world) stopped(token wire.Token, source bool) int {
	w.t.Helper()
	side := journal.Destination
	if source {
		side = journal.Source
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s, err := journal.Read(w.src.JournalDir, token, side)
		if err == nil {
			b, _ := os.ReadFile("/proc/" + itoa(s.Engine.Pid) + "/status")
			if strings.Contains(string(b), "\nState:\tT") {
				return s.Engine.Pid
			}
		}
		if time.Now().After(end) {
			w.t.Fatalf("the engine of the %s does not stop: %v", side, err)
		}
	}
}

// settled waits for both sides and returns the copy that runs.
func (w *world) settled(from, to *copy, before uint64, moved, arrived chan error, token wire.Token) *copy {
	t := w.t
	t.Helper()
	moveErr := w.await("the move", moved)
	arriveErr := w.await("the arrival", arrived)
	if (moveErr == nil) != (arriveErr == nil) {
		t.Errorf("the sides disagree: the move: %v; the arrival: %v", moveErr, arriveErr)
	}
	runs, over := from, to
	if moveErr == nil {
		runs, over = to, from
	}
	over.gone()
	ticks, gap, memory := runs.report()
	if memory != "ok" || ticks <= before || !runs.runs() {
		t.Errorf("memory %s, ticks %d after %d, runs %v", memory, ticks, before, runs.runs())
	}
	t.Logf("%s runs, silent for %s; %s; %v", runs.name, time.Duration(gap), w.journalOf(token), moveErr)
	return runs
}

// TestAbort cancels a move before its switch, on one host while the other one's
// engine is stopped at a step: the source runs on, nothing is left of the copy.
func TestAbort(t *testing.T) {
	w := newWorld(t, "1")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	for _, step := range []string{
		"source: PREPARED heard", "source: residual", "source: sealed",
		"destination: receiving", "destination: building", "destination: ready",
	} {
		if !t.Run(step, func(t *testing.T) {
			w.t = t
			w.abortAt(from, step)
		}) {
			break
		}
	}
	w.t = t
}

func (w *world) abortAt(from *copy, step string) {
	t := w.t
	fault(t, "stop "+step)
	defer fault(t, "")
	before, _, _ := from.report()
	token := wire.NewToken()
	to, arrived := w.destination(w.root.Context(), token)
	moved := w.move(w.root.Context(), from, w.address(token))
	// Who aborts is the other side of the one that is stopped.
	m, id, side, entry := w.dst, to.name, journal.Destination, handover.EntryAborted
	source := strings.HasPrefix(step, "source")
	if !source {
		m, id, side, entry = w.src, from.name, journal.Source, handover.EntryKept
	}
	pid := w.stopped(token, source)
	fault(t, "")
	manager, err := m.manager(w.namespace())
	w.must(err)
	h, ok := manager.Active(id)
	if !ok {
		t.Fatal("the request is not under way")
	}
	w.must(manager.Store().Abort(h.ID()))
	w.awaitEntry(token, side, entry)
	w.must(unix.Kill(pid, unix.SIGCONT))
	if runs := w.settled(from, to, before, moved, arrived, token); runs != from {
		t.Fatal("the move was not aborted")
	}
}

// TestStalledDestination: a destination that does nothing any more ends the move
// when the source's patience does, by its time-out or by its watchdog, and the
// source runs on.
func TestStalledDestination(t *testing.T) {
	w := newWorld(t, "1")
	t.Cleanup(func() { fault(t, "") })
	from := w.source()
	for _, test := range []struct {
		step, why string
		patience  func(*address.Move)
	}{
		{"destination: negotiating", "", func(m *address.Move) { m.Timeout = 2 * time.Second }},
		{"destination: receiving", "", func(m *address.Move) { m.Timeout = 2 * time.Second }},
		{"destination: joining", "", func(m *address.Move) { m.Timeout = 2 * time.Second }},
		{"destination: receiving", "advanced", func(m *address.Move) {
			m.Policies = policy.Encode(map[string]string{policy.Watchdog: "1s"})
		}},
	} {
		t.Run(test.step, func(t *testing.T) {
			w.t = t
			fault(t, "stop "+test.step)
			before, _, _ := from.report()
			token := wire.NewToken()
			to, arrived := w.destination(w.root.Context(), token)
			m := w.address(token)
			test.patience(&m)
			moved := w.move(w.root.Context(), from, m)
			pid := w.stopped(token, false)
			fault(t, "")
			err := w.await("the move", moved)
			if err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("a container moved to a host that does nothing: %v", err)
			}
			// It runs on before the destination does anything again.
			if ticks, _, memory := from.report(); memory != "ok" || ticks <= before {
				t.Errorf("memory %s, ticks %d after %d", memory, ticks, before)
			}
			w.must(unix.Kill(pid, unix.SIGCONT))
			done := make(chan error, 1)
			done <- err
			from = w.settled(from, to, before, done, arrived, token)
		})
	}
	w.t = t
}

// TestReasonTravels: each side's error says why the other one gave up.
func TestReasonTravels(t *testing.T) {
	w := newWorld(t, "1")
	from := w.source()
	token := wire.NewToken()
	// A spec that allows less than the image needs: the destination refuses.
	to := w.newCopy("poor")
	to.spec.Process.User.UID, to.spec.Process.User.GID = 1234, 1234
	arrived := w.arrive(w.root.Context(), to, token)
	moved := w.move(w.root.Context(), from, w.address(token))
	moveErr, arriveErr := w.await("the move", moved), w.await("the arrival", arrived)
	if moveErr == nil || arriveErr == nil {
		t.Fatalf("moved: %v, %v", moveErr, arriveErr)
	}
	t.Logf("the source: %v\nthe destination: %v", moveErr, arriveErr)
	if !strings.Contains(moveErr.Error(), "the destination gave up") || !strings.Contains(moveErr.Error(), "asks for more than the spec") {
		t.Errorf("the source does not say why: %v", moveErr)
	}
	to.gone()
	if _, _, memory := from.report(); memory != "ok" {
		t.Errorf("memory %s", memory)
	}
	for _, side := range []journal.Side{journal.Source, journal.Destination} {
		s, err := journal.Read(w.src.JournalDir, token, side)
		if err != nil || !slices.Contains([]handover.Entry{handover.EntryKept, handover.EntryAborted}, s.Entry) {
			t.Errorf("%s: %q, %v", side, s.Entry, err)
		}
	}
}
