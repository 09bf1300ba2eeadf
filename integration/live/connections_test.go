// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// asked is a program that has TCP connections and does with them what it is asked,
// line by line: each is an expression, whose value is the answer. Both ends write
// what pattern says.
const asked = `
import fcntl, select, socket, struct, termios, traceback
P = bytes(range(251)) * 40000
S, sent, got, W = {}, {}, {}, 20
def listen(family, port, backlog):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(('', port)), s.listen(backlog)
    return s
L = {p: listen(f, p, 32) for p, f in ((9000, socket.AF_INET), (9001, socket.AF_INET6), (9002, socket.AF_INET), (9003, socket.AF_INET6))}
def wait(s, what):
    if not select.select([s] if what == 'r' else [], [s] if what == 'w' else [], [], W)[what == 'w']: raise TimeoutError
def accept(port, name):
    wait(L[port], 'r')
    s, peer = L[port].accept()
    s.setblocking(False)
    S[name], sent[name], got[name] = s, 0, 0
    return peer[1]
def fill(name):
    while select.select([], [S[name]], [], 0.3)[1]: put(name, 65536, True)
    return sent[name]
def put(name, n, once=False):
    while n:
        o = sent[name] % 251
        wait(S[name], 'w')
        k = S[name].send(P[o:o + n])
        sent[name] += k
        n = 0 if once else n - k
def take(name, n):
    while n:
        wait(S[name], 'r')
        b = S[name].recv(n)
        o = got[name] % 251
        if not b or b != P[o:o + len(b)]: raise ValueError('%d bytes behind %d are wrong' % (len(b), got[name]))
        got[name] += len(b)
        n -= len(b)
def end(name):
    wait(S[name], 'r')
    return S[name].recv(1) == b''
def urgent(name): return S[name].recv(1, socket.MSG_OOB)
def mark(name): return struct.unpack('i', fcntl.ioctl(S[name], 0x8905, b'\0\0\0\0'))[0]
def state(name): return S[name].getsockopt(6, 11, 8)[0]
def again(name): return struct.unpack('I', S[name].getsockopt(6, 11, 12)[8:])[0] < 1000000
def info(name):
    s, t = S[name], S[name].getsockopt(6, 11, 104)
    o = [(l, n, s.getsockopt(l, n)) for l, n in ((1, 9), (1, 10), (1, 36), (6, 1), (6, 2), (6, 4), (6, 5), (6, 6), (6, 18))]
    return t[0], t[5] & 7, t[6], struct.unpack('I', t[16:20])[0], o, s.getsockopt(6, 13, 16), s.getsockopt(1, 25, 16), s.getsockname(), s.getpeername()
l = listen(socket.AF_INET, 8000, 8)
while True:
    c = l.accept()[0]
    for line in c.makefile():
        try: answer = repr(eval(line))
        except Exception: answer = 'failed: ' + traceback.format_exc().replace('\n', ' ')
        c.sendall(answer.encode() + b'\n')
`

// server asks it.
type server struct {
	w *world
	c net.Conn
	r *bufio.Reader
}

func (w *world) asked(i image.Image) *server {
	w.t.Helper()
	w.runPod(i, "server", "python3", "/asked.py")
	w.listens(podIP4 + ":8000")
	c, err := w.dial(w.t.Context(), podIP4+":8000")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return &server{w, c, bufio.NewReader(c)}
}

// do returns the value of an expression.
func (s *server) do(format string, args ...any) string {
	s.w.t.Helper()
	_ = s.c.SetDeadline(time.Now().Add(2 * patience))
	line := fmt.Sprintf(format, args...)
	if _, err := io.WriteString(s.c, line+"\n"); err != nil {
		s.w.t.Fatalf("%s: %v", line, err)
	}
	out, err := s.r.ReadString('\n')
	if err != nil || strings.HasPrefix(out, "failed") {
		s.w.t.Fatalf("%s: %v %s", line, err, out)
	}
	return strings.TrimSpace(out)
}

// must is do whose answer is known.
func (s *server) must(want, format string, args ...any) {
	s.w.t.Helper()
	if got := s.do(format, args...); got != want {
		s.w.t.Errorf("%s is %s, want %s", fmt.Sprintf(format, args...), got, want)
	}
}

// end is a client's end of a connection.
type end struct {
	*net.TCPConn
	t         *testing.T
	name      string
	sent, got int
}

// families are the addresses of the server's listeners, by their kind: 9000 for
// those that it accepts from, 9002 for the others.
func families(port int) map[string]string {
	return map[string]string{
		"4": fmt.Sprintf("%s:%d", podIP4, port), "mapped": fmt.Sprintf("%s:%d", podIP4, port+1), "6": fmt.Sprintf("[%s]:%d", podIP6, port+1),
	}
}

// connect opens a connection, which the server has accepted.
func (s *server) connect(name, address string) *end {
	s.w.t.Helper()
	e := s.queue(name, address)
	s.do("accept(%s, '%s')", address[strings.LastIndex(address, ":")+1:], name)
	return e
}

// queue opens one that it has not.
func (s *server) queue(name, address string) *end {
	s.w.t.Helper()
	c, err := s.w.dial(s.w.t.Context(), address)
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.w.t.Cleanup(func() { c.Close() })
	return &end{TCPConn: c.(*net.TCPConn), t: s.w.t, name: name}
}

func pattern251(at, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((at + i) % 251)
	}
	return b
}

func (e *end) put(n int) {
	e.t.Helper()
	_ = e.SetDeadline(time.Now().Add(patience))
	if _, err := e.Write(pattern251(e.sent, n)); err != nil {
		e.t.Errorf("%s: %v", e.name, err)
	}
	e.sent += n
}

func (e *end) take(n int) {
	e.t.Helper()
	_ = e.SetDeadline(time.Now().Add(patience))
	b := make([]byte, n)
	if k, err := io.ReadFull(e, b); err != nil {
		e.t.Fatalf("%s: %d of %d bytes: %v", e.name, k, n, err)
	}
	if !bytes.Equal(b, pattern251(e.got, n)) {
		e.t.Errorf("%s: bytes %d to %d are wrong", e.name, e.got, e.got+n)
	}
	e.got += n
}

// ends: the server has ended its stream.
func (e *end) ends() {
	e.t.Helper()
	_ = e.SetDeadline(time.Now().Add(patience))
	if n, err := e.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		e.t.Errorf("%s: %d bytes and %v instead of the end of the stream", e.name, n, err)
	}
}

// urge sends a byte out of band behind n others.
func (e *end) urge(n int) {
	e.t.Helper()
	raw, err := e.SyscallConn()
	var sent error
	if err == nil {
		err = raw.Write(func(fd uintptr) bool {
			sent = unix.Sendto(int(fd), append(pattern251(e.sent, n), '!'), unix.MSG_OOB, nil)
			return true
		})
	}
	if err := errors.Join(err, sent); err != nil {
		e.t.Fatalf("%s: %v", e.name, err)
	}
	e.sent += n
}

// States of include/net/tcp_states.h.
const (
	established = 1
	finWait1    = 4
	finWait2    = 5
	closeWait   = 8
	lastAck     = 9
	closing     = 11
)

// story is one connection: what is done with it before the move, the state in which
// that leaves the server's end, and what is done behind it.
type story struct {
	name   string
	state  int
	before func(s *server, e *end)
	after  func(s *server, e *end)
}

// closed fills the client's window, and the server's buffer.
func closed(s *server, e *end) int {
	var n int
	_, _ = fmt.Sscan(s.do("fill('%s')", e.name), &n)
	return n
}

// stories of one address. full is how much each server's end has written.
func stories() []story {
	full := map[string]int{}
	both := func(s *server, e *end) { // everything that is on its way, in both directions
		e.take(full[e.name])
		s.do("take('%s', 5000)", e.name)
	}
	leave := func(s *server, e *end) { _ = e.CloseWrite() }
	return []story{
		{"options", established, func(s *server, e *end) {
			for _, o := range [][3]int{{1, 9, 1}, {6, 4, 77}, {6, 5, 11}, {6, 6, 4}, {6, 18, 54321}, {6, 1, 1}, {1, 36, 7}} {
				s.do("S['%s'].setsockopt(%d, %d, %d)", e.name, o[0], o[1], o[2])
			}
			s.do("S['%s'].setsockopt(6, 13, b'reno')", e.name)
			s.do("S['%s'].setsockopt(1, 25, b'eth0')", e.name)
			e.put(3000)
			s.do("put('%s', 4000)", e.name)
		}, func(s *server, e *end) {
			s.do("take('%s', 3000)", e.name)
			e.take(4000)
			e.put(100000)
			s.do("take('%s', 100000)", e.name)
			s.do("put('%s', 100000)", e.name)
			e.take(100000)
		}},
		{"full", established, func(s *server, e *end) { full[e.name] = closed(s, e); e.put(5000) }, both},
		{"FIN_WAIT1", finWait1, func(s *server, e *end) {
			full[e.name] = closed(s, e)
			s.do("S['%s'].shutdown(1)", e.name)
		}, func(s *server, e *end) {
			e.take(full[e.name])
			e.ends()
			e.put(7000)
			leave(s, e)
			s.do("take('%s', 7000)", e.name)
			s.must("True", "end('%s')", e.name)
		}},
		{"FIN_WAIT2", finWait2, func(s *server, e *end) {
			s.do("put('%s', 1000)", e.name)
			s.do("S['%s'].shutdown(1)", e.name)
			e.put(2000)
		}, func(s *server, e *end) {
			e.take(1000)
			e.ends()
			e.put(2000)
			leave(s, e)
			s.do("take('%s', 4000)", e.name)
			s.must("True", "end('%s')", e.name)
		}},
		{"CLOSE_WAIT", closeWait, func(s *server, e *end) { e.put(9000); leave(s, e) }, func(s *server, e *end) {
			s.do("take('%s', 9000)", e.name)
			s.must("True", "end('%s')", e.name)
			s.do("put('%s', 50000)", e.name)
			s.do("S['%s'].close()", e.name)
			e.take(50000)
			e.ends()
		}},
		{"LAST_ACK", lastAck, func(s *server, e *end) {
			full[e.name] = closed(s, e)
			e.put(5000)
			leave(s, e)
			s.w.serverIn(s, e, closeWait)
			s.do("S['%s'].shutdown(1)", e.name)
		}, func(s *server, e *end) { both(s, e); s.must("True", "end('%s')", e.name); e.ends() }},
		{"CLOSING", closing, func(s *server, e *end) {
			full[e.name] = closed(s, e)
			s.do("S['%s'].shutdown(1)", e.name)
			e.put(5000)
			leave(s, e)
		}, func(s *server, e *end) { both(s, e); s.must("True", "end('%s')", e.name); e.ends() }},
		{"urgent", established, func(s *server, e *end) { e.urge(1000); e.put(2000) }, func(s *server, e *end) {
			s.must("0", "mark('%s')", e.name)
			s.must("b'!'", "urgent('%s')", e.name)
			s.do("take('%s', 1000)", e.name)
			s.must("1", "mark('%s')", e.name)
			s.do("take('%s', 2000)", e.name)
		}},
		{"urgent inline", established, func(s *server, e *end) {
			s.do("S['%s'].setsockopt(1, 10, 1)", e.name)
			e.urge(1000)
			e.put(2000)
		}, func(s *server, e *end) {
			s.do("take('%s', 1000)", e.name)
			s.must("1", "mark('%s')", e.name)
			s.must("b'!'", "S['%s'].recv(1)", e.name)
			s.do("take('%s', 2000)", e.name)
		}},
	}
}

// serverIn waits until the server's end is in a state.
func (w *world) serverIn(s *server, e *end, state int) {
	w.t.Helper()
	waitFor(w.t, patience, fmt.Sprintf("state %d of %s", state, e.name), func() bool { return s.do("state('%s')", e.name) == fmt.Sprint(state) })
}

// TestConnections moves a server with connections in every state that they can be
// in for long, over IPv4, IPv6 and IPv4 to a socket of IPv6, and such as wait to be
// accepted, and finds all of them as they were.
func TestConnections(t *testing.T) {
	i := image.Python
	i.Name, i.Files = "mig.test/asked:1", map[string]string{"/asked.py": asked}
	w := newWorld(t, daemon.V24, i)
	s := w.asked(i)
	type one struct {
		story
		*end
		info string
	}
	var all []*one
	for family, address := range families(9000) {
		for _, st := range stories() {
			all = append(all, &one{story: st, end: s.connect(st.name+" "+family, address)})
		}
	}
	for _, o := range all {
		o.before(s, o.end)
	}
	var waiting []*end
	for family, address := range families(9002) {
		for _, n := range []int{0, 1000, 30000} {
			e := s.queue(fmt.Sprintf("waiting %d %s", n, family), address)
			e.put(n)
			waiting = append(waiting, e)
		}
		e := s.queue("waiting ended "+family, address)
		e.put(4000)
		_ = e.CloseWrite()
		waiting = append(waiting, e)
	}
	for _, o := range all {
		w.serverIn(s, o.end, o.state)
		o.info = s.do("info('%s')", o.end.name)
	}
	r := w.mustMove(w.alpha, "server", w.beta.IP, "--tcp", "keep")
	if n := slices.IndexFunc(r.Warnings, func(s string) bool { return strings.Contains(s, "accept") }); n >= 0 {
		t.Error(r.Warnings[n])
	}
	for _, o := range all {
		s.must(o.info, "info('%s')", o.end.name)
		if o.state == established {
			s.must("True", "again('%s')", o.end.name) // what is lost: after less than a second
		}
	}
	if out := w.beta.inNetwork(t, "server", "ss -tno state established '( sport = :9000 or sport = :9001 )'"); strings.Count(out, "keepalive") != 3 {
		t.Errorf("timers of keepalive: %s", out)
	}
	for _, o := range all {
		o.after(s, o.end)
	}
	for _, e := range waiting {
		if !strings.Contains(e.name, "ended") {
			e.put(500)
		}
	}
	byPort := map[string]*end{}
	for _, e := range waiting {
		byPort[fmt.Sprint(e.LocalAddr().(*net.TCPAddr).Port)] = e
	}
	for _, port := range []int{9002, 9003, 9003} {
		for range 4 {
			e := byPort[s.do("accept(%d, 'next')", port)]
			if e == nil {
				t.Fatal("a connection is accepted that nobody has opened, or twice")
			}
			delete(byPort, fmt.Sprint(e.LocalAddr().(*net.TCPAddr).Port))
			s.must("7", "info('next')[1]") // time stamps, SACK, window scales
			s.do("take('next', %d)", e.sent)
			if strings.Contains(e.name, "ended") {
				s.must("True", "end('next')")
			}
			s.do("put('next', 20000)")
			e.take(20000)
		}
	}
}
