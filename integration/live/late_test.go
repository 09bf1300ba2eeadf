// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestLateSegments: connections that the server has closed, and those that both ends
// have, are of the other host's after a move, and of the first one's after another: a
// FIN that comes late is answered by no reset, neither is one of whom nobody has known,
// and who connects from the same port gets through.
func TestLateSegments(t *testing.T) {
	i := image.Python
	i.Name, i.Files = "mig.test/asked:1", map[string]string{"/asked.py": asked}
	w := newWorld(t, daemon.V24, i)
	s := w.asked(i)
	captures := []*capture{w.capture("the network between the hosts", w.lab.Cables()), w.capture("alpha", w.alpha.Host), w.capture("beta", w.beta.Host)}
	l := &lateness{s: s, captures: captures, begun: time.Now()}
	for family, address := range families(9000) {
		half := l.open("half "+family, address, "fin-wait-2")
		over := l.open("over "+family, address, "fin-wait-2")
		anew := l.open("anew "+family, address, "fin-wait-2")
		for _, e := range []*end{over, anew} {
			_ = e.Close()
			l.server(w.alpha, e, "time-wait")
		}
		l.half, l.over, l.anew = append(l.half, half), append(l.over, over), append(l.anew, anew)
	}
	w.mustMove(w.alpha, "server", w.beta.IP, "--tcp", "keep")
	for _, e := range l.half {
		_ = e.Close() // this one's FIN is the client's kernel's
	}
	for _, e := range append(l.over, l.anew...) {
		w.late(e)
	}
	l.nobodyIsTold()
	for _, e := range l.anew {
		l.again(e)
	}
	w.mustMove(w.beta, "server", w.alpha.IP, "--tcp", "keep")
	for _, e := range append(l.over, l.half...) {
		w.late(e)
	}
	l.nobodyIsTold()
	for _, e := range l.anew {
		s.do("put('%s', 3000)", e.name)
		e.take(3000)
	}
	for _, e := range l.half {
		// Not answered: the client's kernel still waits.
		if out := w.onClient(t, e, "last-ack"); out == "" {
			t.Errorf("%s has ended at the client", e.name)
		}
	}
}

// lateness is a server with connections that have ended for its program.
type lateness struct {
	s                *server
	captures         []*capture
	begun            time.Time
	half, over, anew []*end
}

// open opens a connection, which the server closes.
func (l *lateness) open(name, address, state string) *end {
	e := l.s.connect(name, address)
	l.s.do("S.pop('%s').close()", name)
	e.ends()
	l.server(l.s.w.alpha, e, state)
	return e
}

// server waits for a state of a connection that nobody there has any more.
func (l *lateness) server(on *host, e *end, state string) {
	l.s.w.t.Helper()
	_, port, _ := net.SplitHostPort(e.LocalAddr().String())
	waitFor(l.s.w.t, patience, fmt.Sprintf("%s of %s", state, e.name), func() bool {
		return on.inNetwork(l.s.w.t, "server", fmt.Sprintf("ss -tnH state %s '( dport = :%s )'", state, port)) != ""
	})
}

// onClient is what ss tells of a connection in a state.
func (w *world) onClient(t *testing.T, e *end, state string) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(e.LocalAddr().String())
	out, err := w.client.Command(t.Context(), "ss", "-tnH", "state", state, fmt.Sprintf("( sport = :%s )", port)).CombinedOutput()
	if err != nil {
		t.Fatalf("ss: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// stranger is the port of a client that no host has ever had a connection with.
const stranger = 9

// nobodyIsTold: no reset has left a host for a connection that it does not have, not
// even for one that nobody can have listed, when one has for a port that is closed.
func (l *lateness) nobodyIsTold() {
	t, w := l.s.w.t, l.s.w
	t.Helper()
	const closed = 1
	for _, ip := range []string{podIP4, podIP6} {
		client := netip.MustParseAddr(map[string]string{podIP4: w.client.IP, podIP6: clientIP6}[ip])
		w.fin(netip.AddrPortFrom(client, stranger), netip.AddrPortFrom(netip.MustParseAddr(ip), 9000))
		since := time.Now()
		if _, err := w.dial(t.Context(), net.JoinHostPort(ip, fmt.Sprint(closed))); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("a port that is closed: %v", err)
		}
		waitFor(t, patience, "a reset of a port that is closed", func() bool {
			return slices.ContainsFunc(l.captures[0].of(since, isReset), func(n notice) bool { return n.from.Addr().String() == ip && n.from.Port() == closed })
		})
	}
	for _, c := range l.captures {
		for _, n := range c.of(l.begun, isReset) {
			if ip := n.from.Addr().String(); (ip == podIP4 || ip == podIP6) && n.from.Port() != closed {
				t.Error(n)
			}
		}
	}
}

// late has a FIN of a connection come once more.
func (w *world) late(e *end) {
	w.t.Helper()
	from, to := e.LocalAddr().(*net.TCPAddr).AddrPort(), e.RemoteAddr().(*net.TCPAddr).AddrPort()
	w.fin(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
}

// fin sends a segment with FIN from the client's host, by nobody's socket.
func (w *world) fin(from, to netip.AddrPort) {
	w.t.Helper()
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, from.Port()), to.Port())
	b = be.AppendUint32(be.AppendUint32(b, 1), 1)
	b = append(b, 5<<4, 1|1<<4 /* FIN, ACK */, 1, 0, 0, 0, 0, 0)
	be.PutUint16(b[16:], checksum(from.Addr(), to.Addr(), b))
	family, any := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.Addr().AsSlice()[:4])})
	if to.Addr().Is6() {
		family, any = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16()}
	}
	err := w.byHost(family, unix.SOCK_RAW, unix.IPPROTO_TCP, func(fd, _ int) error { return os.NewSyscallError("sendto", unix.Sendto(fd, b, 0, any)) })
	if err != nil {
		w.t.Fatal(err)
	}
}

// checksum is that of a TCP segment (RFC 9293), whose own field is zero.
func checksum(from, to netip.Addr, segment []byte) uint16 {
	b := append(append(from.AsSlice(), to.AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	sum := uint32(0)
	for b = append(b, segment...); len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// again connects from the port that a client had, to the server that it had.
func (l *lateness) again(e *end) {
	t := l.s.w.t
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: e.LocalAddr(), Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(err, set)
	}}
	var c net.Conn
	err := l.s.w.client.InNetwork(func() (err error) {
		c, err = d.DialContext(context.Background(), "tcp", e.RemoteAddr().String())
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	t.Cleanup(func() { c.Close() })
	e.TCPConn, e.sent, e.got = c.(*net.TCPConn), 0, 0
	l.s.do("accept(%d, '%s')", e.RemoteAddr().(*net.TCPAddr).Port, e.name)
	e.put(2000)
	l.s.do("take('%s', 2000)", e.name)
}
