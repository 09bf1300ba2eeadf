// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/pattern"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// unread asks a server for an answer of some hundred kilobytes, behind which it closes
// the connection, and reads nothing until it has.
func (w *world) unread(on *host, ip string) net.Conn {
	w.t.Helper()
	c, err := w.dial(w.t.Context(), net.JoinHostPort(ip, fmt.Sprint(traffic.TalkPort)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if err := c.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		w.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "GET /stream/%d HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n", answerSize); err != nil {
		w.t.Fatal(err)
	}
	port := c.LocalAddr().(*net.TCPAddr).Port
	waitFor(w.t, patience, "the server has closed the connection", func() bool {
		return strings.Contains(on.inNetwork(w.t, "server", fmt.Sprintf("ss -tn state fin-wait-1 '( dport = :%d )'", port)), fmt.Sprint(port))
	})
	return c
}

const answerSize = 250_000

// readAnswer reads it to its end.
func readAnswer(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if n, err := io.Copy(&pattern.Checker{}, r.Body); err != nil || n != answerSize {
		return fmt.Errorf("%d of %d bytes: %w", n, answerSize, err)
	}
	return nil
}

// TestClosedConnectionsArrive: a client whose server has closed the connection reads
// nothing until a move is about to stop that, and then everything. One that goes on
// reading nothing is named, and finds the connection reset.
func TestClosedConnectionsArrive(t *testing.T) {
	w := newPod(t, talk(t), traffic.TalkPort)
	from, to := w.alpha, w.beta
	for i := range 4 {
		ip := []string{podIP4, podIP6}[i%2]
		c := w.unread(from, ip)
		done := from.start("server", to.IP, "--tcp", "keep")
		holdsOff(t, from.pid("server"))
		time.Sleep(50 * time.Millisecond) // longer than it takes to stop the server
		if err := readAnswer(c); err != nil {
			t.Errorf("answer of %s: %v", ip, err)
		}
		o := <-done
		if o.err != nil {
			t.Fatal(o.err)
		}
		for _, text := range o.report.Warnings {
			t.Error(text)
		}
		from, to = to, from
	}
	c := w.unread(from, podIP4)
	r := w.mustMove(from, "server", to.IP, "--tcp", "keep")
	if all := strings.Join(r.Warnings, "\n"); !strings.Contains(all, c.LocalAddr().String()) {
		t.Errorf("the warnings do not name %s: %s", c.LocalAddr(), all)
	}
	if err := readAnswer(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that has not read its answer finds %v", err)
	}
}

// holdsOff waits until a move holds off what is new: then a socket of packet(7) is in
// the container's network.
func holdsOff(t *testing.T, pid string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile("/proc/" + pid + "/net/packet")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(b), "\n") > 1 {
			return
		}
	}
	t.Fatal("nothing is held off")
}
