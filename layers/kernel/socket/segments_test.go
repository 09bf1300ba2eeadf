// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// TestSendSegments: what was on its way goes out at once, in as many segments as it
// takes, which the window of a new connection allows: the other end may have all of
// it, and what it says of more than was transmitted is not believed.
func TestSendSegments(t *testing.T) {
	kerneltest.NeedRoot(t)
	for _, maxSegment := range []int{0, 1460, 9000, 20000, 32767} {
		fd, read := streamWith(t, maxSegment)
		segment, err := segmentSize(fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			t.Fatal(err)
		}
		before := infoOf(t, fd)
		const n = burst
		if err := sendSegments(fd, make([]byte, n*segment-1), unix.MSG_EOR); err != nil {
			t.Fatal(err)
		}
		after := infoOf(t, fd)
		if sent := after.segments - before.segments; sent != n || after.notSent != 0 {
			t.Errorf("of %d bytes each: %d segments, want %d; %d bytes wait", segment, sent, n, after.notSent)
		}
		read(n*segment - 1)
	}
}

// streamWith connects to a reader that has a large window; read waits until it has
// read so much.
func streamWith(t *testing.T, maxSegment int) (fd int, read func(n int)) {
	t.Helper()
	wide := func(fd uintptr) error {
		return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = wide(fd) }), err)
	}}
	l, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if maxSegment > 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, maxSegment); err != nil {
			t.Fatal(err)
		}
	}
	// One that does not pace: a connection that was just made is not paced either.
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno"); err != nil {
		t.Fatal(err)
	}
	at := unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20), unix.Connect(fd, &at))
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	read = func(n int) {
		t.Helper()
		if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
			t.Fatal(err)
		}
	}
	// The window grows with what is read.
	for range 20 {
		if _, err := unix.Write(fd, make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
		read(64 << 10)
	}
	for end := time.Now().Add(5 * time.Second); infoOf(t, fd).unacknowledged > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the reader acknowledges nothing")
		}
	}
	return fd, read
}

// info is of struct tcp_info, include/uapi/linux/tcp.h.
type info struct{ unacknowledged, notSent, segments uint32 }

func infoOf(t *testing.T, fd int) info {
	t.Helper()
	b, err := get(fd, unix.IPPROTO_TCP, unix.TCP_INFO, 160)
	if err != nil || len(b) < 160 {
		t.Fatalf("getsockopt(TCP_INFO): %d bytes: %v", len(b), err)
	}
	n := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	return info{unacknowledged: n(24), notSent: n(144), segments: n(156)}
}
