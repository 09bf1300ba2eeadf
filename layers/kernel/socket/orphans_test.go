// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// closedWithRest is a client that has read nothing of what a server had written when
// it closed the connection, which has more on its way than the client's window takes.
func closedWithRest(t *testing.T, address string) (client net.Conn, server ends, size int) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("no such address here: %v", err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = ends{c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()}
	for chunk := make([]byte, 1<<20); ; { // until nothing more is taken
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := c.Write(chunk)
		size += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return client, server, size
}

// patience is for what has to come.
const patience = 20 * time.Second

func thisNetwork(t *testing.T, port uint16) *orphans {
	t.Helper()
	f, err := os.Open("/proc/thread-self/ns/net") // the first thread may be in another one for good (kerneltest.InNetwork)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &orphans{net: f, ports: []uint16{port}}
}

// TestClosedConnectionsAreWaitedFor until their other ends have everything, and not
// for longer than was said.
func TestClosedConnectionsAreWaitedFor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: enters a network namespace")
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		client, server, size := closedWithRest(t, address)
		o := thisNetwork(t, server.local.Port())
		const short = 60 * time.Millisecond
		for _, which := range [][]ends{nil, {server}} {
			begun := time.Now()
			left, err := o.wait(t.Context(), short, which)
			if err != nil || !slices.Equal(left, []ends{server}) {
				t.Fatalf("left are %v (%v), want %v", left, err, server)
			}
			if took := time.Since(begun); took < short {
				t.Errorf("it has waited for %s only", took)
			}
		}
		// Of another one, nothing is left.
		if left, err := o.wait(t.Context(), patience, []ends{server.reversed()}); err != nil || len(left) != 0 {
			t.Errorf("%v, %v", left, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(short, cancel)
		if _, err := o.wait(ctx, patience, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled, the wait says %v", err)
		}
		read := make(chan error, 1)
		time.AfterFunc(short, func() {
			n, err := io.Copy(io.Discard, client)
			if err == nil && n != int64(size) {
				err = fmt.Errorf("%d bytes, want %d", n, size)
			}
			read <- err
		})
		if left, err := o.wait(t.Context(), patience, nil); err != nil || len(left) != 0 {
			t.Errorf("%v, %v", left, err)
		}
		if err := <-read; err != nil {
			t.Error(err)
		}
	}
}

// TestLostConnectionsAreNamed: not all of very many, and not those within the
// container.
func TestLostConnectionsAreNamed(t *testing.T) {
	at := netip.MustParseAddrPort
	inside := ends{at("127.0.0.1:80"), at("127.0.0.1:5000")}
	if found := lostOrphans([]ends{inside}); found != nil {
		t.Errorf("%v", found)
	}
	list := []ends{inside}
	for i := range 10 {
		list = append(list, ends{at("10.0.0.1:80"), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), uint16(5000+i))})
	}
	found := lostOrphans(list)
	if len(found) != 1 || !found[0].Warning {
		t.Fatalf("%v", found)
	}
	for _, want := range []string{"10 TCP connections", "10.0.0.1:80 to 10.0.0.2:5007, and 2 more)"} {
		if !strings.Contains(found[0].String(), want) {
			t.Errorf("%q is not in %s", want, found[0])
		}
	}
}
