// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// inNamespace runs fn in a network namespace of its own, with a loopback that is up.
func inNamespace(t *testing.T, fn func() error) {
	t.Helper()
	kerneltest.InNetwork(t, func() error {
		if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
			return err
		}
		return fn()
	})
}

// overLoopback is a client's and a server's end, over the loopback.
func overLoopback(address string) (client, server *net.TCPConn, at ends, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, at, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, at, err
	}
	s, err := l.Accept()
	if err != nil {
		return nil, nil, at, err
	}
	client, server = c.(*net.TCPConn), s.(*net.TCPConn)
	return client, server, ends{server.LocalAddr().(*net.TCPAddr).AddrPort(), server.RemoteAddr().(*net.TCPAddr).AddrPort()}, nil
}

// stateOf waits for a state of a connection.
func stateOf(e ends, want uint8) (*inetSocket, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s, err := findInet(e)
		if err != nil {
			return nil, err
		}
		if s != nil && s.state == want {
			return s, nil
		}
	}
	return nil, errors.New("a connection does not come to its state")
}

// TestWhatIsLost: the look at a container that runs finds what has not ended; of a
// connection that its program has closed what was sent arrives by itself, and what was
// not does not.
func TestWhatIsLost(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		inNamespace(t, func() error {
			client, server, half, err1 := overLoopback(address)
			over, overServer, overEnds, err2 := overLoopback(address)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			defer client.Close()
			if err := errors.Join(server.Close(), overServer.Close(), over.Close()); err != nil {
				return err
			}
			ended, err := stateOf(half, stateFinWait2)
			if err != nil {
				return err
			}
			if _, err := stateOf(overEnds, stateTimeWait); err != nil {
				return err
			}
			if lost, err := isLost(ended); err != nil || lost {
				t.Errorf("all was acknowledged: lost: %v, %v", lost, err)
			}
			sub := &Subsystem{}
			l := &sub.hush
			if err := l.note(); err != nil {
				return err
			}
			if len(l.begun) != 2 { // both ends of the other one
				t.Errorf("not ended are %v", l.begun)
			}
			// One by one, and by a walk through all.
			x := &exporter{Subsystem: sub, tcp: newTCPTable(), sockets: map[uint64][]*inetSocket{}}
			p := &target.Process{Proc: procfs.Host().Process(unix.Gettid())}
			for _, fn := range []func() ([]*inetSocket, error){
				func() ([]*inetSocket, error) { return x.unended(p, 0) },
				func() ([]*inetSocket, error) { return x.inetSockets(p) },
			} {
				list, err := fn()
				if err != nil || len(list) != 2 || list[0].state+list[1].state != stateFinWait2+stateCloseWait {
					t.Errorf("of the stopped container's, not ended are %v, %v", list, err)
				}
			}
			_, rest, _ := closedWithRest(t, address)
			s, err := stateOf(rest, stateFinWait1)
			if err != nil {
				return err
			}
			if lost, err := isLost(s); err != nil || !lost {
				t.Errorf("of %d bytes not all was sent: lost: %v, %v", s.unacknowledged, lost, err)
			}
			return nil
		})
	}
}

// TestLostIsBounded: a destination takes what a source sends, however many are lost, and
// in its order.
func TestLostIsBounded(t *testing.T) {
	for _, n := range []int{1, mostLost - 1, mostLost, mostLost + 1, 2 * mostLost} {
		var list []ends
		for i := range n {
			list = append(list, ends{netip.MustParseAddrPort("[fd77::50]:80"), netip.AddrPortFrom(netip.MustParseAddr("fd77::2"), uint16(1+i))})
		}
		got, err := decodeLost(encode(t, KindLost, 0, encodeLost(list)))
		if err != nil || len(got) != min(n, mostLost) {
			t.Errorf("of %d have come %d: %v", n, len(got), err)
			continue
		}
		for i, c := range got {
			if c != list[i].arriving() {
				t.Fatalf("number %d of %d is %v, want %v", i, n, c, list[i].arriving())
			}
		}
	}
}

// TestHostileLost: the list is bounded, comes once, and names connections.
func TestHostileLost(t *testing.T) {
	good := func() *state.WaitingEnds {
		return encodeEnds(ends{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:1024")})
	}
	many := func(n int) *state.LostConnections {
		m := &state.LostConnections{}
		for range n {
			m.Connection = append(m.Connection, good())
		}
		return m
	}
	l := &hush{}
	r := encode(t, KindLost, 0, many(mostLost))
	if err := l.receive(r); err != nil || len(l.told) != mostLost || l.told[0].Source.Port() != 1024 {
		t.Errorf("as the source describes it: %v, %v", l.told[:min(len(l.told), 1)], err)
	}
	if err := l.receive(r); err == nil {
		t.Error("a second list")
	}
	change := func(fn func(*state.LostConnections)) *record.Record {
		m := many(1)
		fn(m)
		return encode(t, KindLost, 0, m)
	}
	for name, r := range map[string]*record.Record{
		"none":              encode(t, KindLost, 0, many(0)),
		"too many":          encode(t, KindLost, 0, many(mostLost+1)),
		"of a description":  encode(t, KindLost, 1, many(1)),
		"without addresses": change(func(m *state.LostConnections) { m.Connection[0] = &state.WaitingEnds{} }),
		"of two families":   change(func(m *state.LostConnections) { m.Connection[0].Remote = make([]byte, 18) }),
		"without a port":    change(func(m *state.LostConnections) { m.Connection[0].Remote = []byte{10, 0, 0, 2, 0, 0} }),
	} {
		if err := (&hush{}).receive(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestOpeningIsNoted: a connection that is being opened when new ones begin to be held
// off may be accepted, answered and closed before the container is stopped.
func TestOpeningIsNoted(t *testing.T) {
	inNamespace(t, func() error {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30) }), err)
		}}
		l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer client.Close()
		opening := ends{l.Addr().(*net.TCPAddr).AddrPort(), client.LocalAddr().(*net.TCPAddr).AddrPort()}
		sub := &Subsystem{}
		if err := sub.hush.note(); err != nil {
			return err
		}
		if !slices.Contains(sub.hush.begun, opening) {
			t.Errorf("%v is not in %v", opening, sub.hush.begun)
		}
		// It has not ended, and is not carried: its client is told.
		x := &exporter{Subsystem: sub, tcp: newTCPTable(), sockets: map[uint64][]*inetSocket{}}
		p := &target.Process{Proc: procfs.Host().Process(unix.Gettid())}
		for name, fn := range map[string]func() ([]*inetSocket, error){
			"one by one": func() ([]*inetSocket, error) { return x.unended(p, 0) },
			"all":        func() ([]*inetSocket, error) { return x.inetSockets(p) },
		} {
			list, err := fn()
			i := slices.IndexFunc(list, func(s *inetSocket) bool { return (ends{s.local, s.remote}) == opening })
			if err != nil || i < 0 {
				t.Errorf("%s: %v is not in %v: %v", name, opening, list, err)
				continue
			}
			if lost, err := isLost(list[i]); err != nil || !lost {
				t.Errorf("%s: lost: %v, %v", name, lost, err)
			}
		}
		return nil
	})
}
