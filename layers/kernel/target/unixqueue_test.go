// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// socketPair is closed with the test.
func socketPair(t *testing.T, typ int) [2]int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds
}

// queue looks at a queue: the length of each message, and how many descriptors came.
func queue(t *testing.T, fd int) (lengths, rights []int) {
	t.Helper()
	err := PeekUnix(fd, func(m *UnixMessage) error {
		lengths, rights = append(lengths, len(m.Data)), append(rights, len(m.Rights))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lengths, rights
}

func send(t *testing.T, fd, n int, rights ...int) {
	t.Helper()
	var control []byte
	if len(rights) > 0 {
		control = unix.UnixRights(rights...)
	}
	if err := unix.Sendmsg(fd, bytes.Repeat([]byte{'x'}, n), control, nil, 0); err != nil {
		t.Fatal(err)
	}
}

func TestPiecesOfAStreamAreFound(t *testing.T) {
	fds := socketPair(t, unix.SOCK_STREAM)
	send(t, fds[0], 600)
	send(t, fds[0], 400)
	send(t, fds[0], 500, 0)
	send(t, fds[0], 700, 1, 2)
	send(t, fds[0], 1, 0)
	send(t, fds[0], 800)
	for range 2 { // a look leaves nothing behind
		lengths, rights := queue(t, fds[1])
		if !slices.Equal(lengths, []int{1000, 500, 700, 1, 800}) || !slices.Equal(rights, []int{0, 1, 2, 1, 0}) {
			t.Errorf("messages of %d bytes with %d descriptors", lengths, rights)
		}
	}
	var b [300]byte
	if _, err := unix.Read(fds[1], b[:]); err != nil {
		t.Fatal(err)
	}
	if lengths, _ := queue(t, fds[1]); !slices.Equal(lengths, []int{700, 500, 700, 1, 800}) {
		t.Errorf("behind 300 bytes: %d", lengths)
	}
}

func TestMessagesAreFound(t *testing.T) {
	for _, typ := range []int{unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
		fds := socketPair(t, typ)
		if lengths, _ := queue(t, fds[1]); len(lengths) != 0 {
			t.Errorf("type %d: messages in an empty queue: %d", typ, lengths)
		}
		send(t, fds[0], 5, 0)
		send(t, fds[0], 100000)
		send(t, fds[0], 0)
		send(t, fds[0], 7, 1, 2)
		lengths, rights := queue(t, fds[1])
		if !slices.Equal(lengths, []int{5, 100000, 0, 7}) || !slices.Equal(rights, []int{1, 0, 0, 2}) {
			t.Errorf("type %d: messages of %d bytes with %d descriptors", typ, lengths, rights)
		}
		// The kernel shows a message of no bytes once.
		if lengths, _ := queue(t, fds[1]); !slices.Equal(lengths, []int{5, 100000, 7}) {
			t.Errorf("type %d: at the second look: %d", typ, lengths)
		}
	}
}

func TestDescriptorsOfALookAreClosed(t *testing.T) {
	fds := socketPair(t, unix.SOCK_STREAM)
	send(t, fds[0], 3, 0, 1, 2)
	free := func() int {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 100)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		return fd
	}
	before := free()
	for range 20 {
		queue(t, fds[1])
	}
	if after := free(); after != before {
		t.Errorf("the lowest free descriptor was %d and is %d", before, after)
	}
}
