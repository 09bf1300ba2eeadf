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
	"github.com/io-mig/mig/layers/kernel/netdrop"
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

// TestWhatIsLate: the look at a container that runs finds what is in TIME_WAIT, and
// what has not ended; of a connection that its program has closed what was sent arrives
// by itself, and what was not does not.
func TestWhatIsLate(t *testing.T) {
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
			if sure, err := arrivesByItself(ended); err != nil || !sure {
				t.Errorf("all was acknowledged: %v, %v", sure, err)
			}
			sub := &Subsystem{}
			l := &sub.late
			if err := l.note(); err != nil {
				return err
			}
			if len(l.ended) != 1 || l.ended[0] != lateEnd(overEnds) {
				t.Errorf("in TIME_WAIT are %v, want %v", l.ended, overEnds)
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
			if sure, err := arrivesByItself(s); err != nil || sure {
				t.Errorf("of %d bytes not all was sent: %v, %v", s.unacknowledged, sure, err)
			}
			return nil
		})
	}
}

// TestOnlyEnded: an image cannot have dropped what comes for a connection that is there,
// or that comes with it.
func TestOnlyEnded(t *testing.T) {
	inNamespace(t, func() error {
		client, server, living, err := overLoopback("127.0.0.1:0")
		if err != nil {
			return err
		}
		defer client.Close()
		defer server.Close()
		at := func(port uint16) ends {
			return ends{netip.MustParseAddrPort("127.0.0.1:80"), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)}
		}
		s := &Subsystem{kept: &kept{all: []netdrop.Connection{at(1).arriving()}, waiting: []netdrop.Connection{at(2).arriving()}}}
		for _, n := range []int{3, fewLate + 3} {
			list := []netdrop.Ended{lateEnd(living), lateEnd(at(1)), lateEnd(at(2))}
			for i := range n {
				list = append(list, lateEnd(at(uint16(1000+i))))
			}
			got, err := s.onlyEnded(list)
			if err != nil {
				return err
			}
			if len(got) != n || got[0] != lateEnd(at(1000)) {
				t.Errorf("of %d connections that have ended and 3 that have not, %d are dropped: %v", n, len(got), got[:min(len(got), 4)])
			}
		}
		return nil
	})
}

// TestHostileLate: the list is bounded, comes once, and names connections.
func TestHostileLate(t *testing.T) {
	good := func() *state.LateConnection {
		return &state.LateConnection{Ends: encodeEnds(ends{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:1024")}), Left: 5000}
	}
	many := func(n int) *state.LateConnections {
		m := &state.LateConnections{}
		for range n {
			m.Connection = append(m.Connection, good())
		}
		return m
	}
	l := &late{}
	r := encode(t, KindLate, 0, many(mostLate))
	if err := l.receive(r); err != nil || len(l.list) != mostLate || l.list[0].Left != 5*time.Second || l.list[0].Source.Port() != 1024 {
		t.Errorf("as the source describes it: %v, %v", l.list[:min(len(l.list), 1)], err)
	}
	if err := l.receive(r); err == nil {
		t.Error("a second list")
	}
	change := func(fn func(*state.LateConnection)) *record.Record {
		m := many(1)
		fn(m.Connection[0])
		return encode(t, KindLate, 0, m)
	}
	for name, r := range map[string]*record.Record{
		"none":              encode(t, KindLate, 0, many(0)),
		"too many":          encode(t, KindLate, 0, many(mostLate+1)),
		"of a description":  encode(t, KindLate, 1, many(1)),
		"for a long time":   change(func(c *state.LateConnection) { c.Left = 1 << 31 }),
		"without addresses": change(func(c *state.LateConnection) { c.Ends = nil }),
		"of two families":   change(func(c *state.LateConnection) { c.Ends.Remote = make([]byte, 18) }),
		"without a port":    change(func(c *state.LateConnection) { c.Ends.Remote = []byte{10, 0, 0, 2, 0, 0} }),
	} {
		if err := (&late{}).receive(r); err == nil {
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
		if err := sub.late.note(); err != nil {
			return err
		}
		if !slices.Contains(sub.late.begun, opening) {
			t.Errorf("%v is not in %v", opening, sub.late.begun)
		}
		// It has not ended: what comes for it is not dropped.
		x := &exporter{Subsystem: sub, tcp: newTCPTable(), sockets: map[uint64][]*inetSocket{}}
		p := &target.Process{Proc: procfs.Host().Process(unix.Gettid())}
		for name, fn := range map[string]func() ([]*inetSocket, error){
			"one by one": func() ([]*inetSocket, error) { return x.unended(p, 0) },
			"all":        func() ([]*inetSocket, error) { return x.inetSockets(p) },
		} {
			list, err := fn()
			if err != nil || !slices.ContainsFunc(list, func(s *inetSocket) bool { return (ends{s.local, s.remote}) == opening }) {
				t.Errorf("%s: %v is not in %v: %v", name, opening, list, err)
			}
		}
		return nil
	})
}
