// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Messages of a POSIX queue can be read by taking them out only (ipc/mqueue.c
// has no look at them). A turn takes out all and sends them again, in the order
// in which they came out: by priority, and first in, first out for each, which is
// the order in which they were. Nobody of the container runs meanwhile.
//
// A turn may end at any instruction, by the death of whoever makes it, and can be
// finished by anybody who has the queue and the turn's memory: what has come out
// is there, since the kernel itself writes it, and how far the turn has come the
// queue tells by the number and the bytes of its messages.
type turn struct {
	fd int // of the queue, O_RDWR and O_NONBLOCK
	// memory is shared by all who may finish the turn: a header, and the messages
	// one behind another.
	memory []byte
}

// Words of the header. What is not set by newTurn is set by the turn.
const (
	turnPhase    = 0  // see below
	turnCount    = 8  // messages
	turnBytes    = 16 // of all of them
	turnMost     = 24 // bytes that a message may have
	turnHeader   = 32
	messageSize  = 0 // of a message: its bytes and one more; 0 until they are known
	messagePrio  = 8
	messageText  = 16
	messageAlign = 8
)

// Phases.
const (
	turnTakes = iota // takes messages out, or has not begun
	turnSends        // all are out, sends them
	turnDone
)

// turnSize is the memory that a turn needs.
func turnSize(q *posixQueue) int64 {
	pages := turnHeader + q.attr.messages*(messageText+messageAlign) + q.bytes + q.attr.messageSize + pageSize - 1
	return pages &^ (pageSize - 1)
}

// newTurn prepares a turn in memory of zeroes.
func newTurn(fd int, q *posixQueue, memory []byte) *turn {
	t := &turn{fd, memory}
	t.put(turnCount, uint64(q.attr.messages))
	t.put(turnBytes, uint64(q.bytes))
	t.put(turnMost, uint64(q.attr.messageSize))
	return t
}

func (t *turn) word(at int) uint64 { return binary.NativeEndian.Uint64(t.memory[at:]) }

func (t *turn) put(at int, v uint64) { binary.NativeEndian.PutUint64(t.memory[at:], v) }

// next is the place behind the message at a place.
func (t *turn) next(at int) int {
	size := int(t.word(at+messageSize)) - 1
	return at + (messageText+size+messageAlign-1)&^(messageAlign-1)
}

// run makes the turn, or what is left of it.
func (t *turn) run() error {
	if t.word(turnPhase) == turnTakes {
		if err := t.take(); err != nil {
			return err
		}
		t.put(turnPhase, turnSends)
	}
	if t.word(turnPhase) == turnSends {
		if err := t.send(); err != nil {
			return err
		}
		t.put(turnPhase, turnDone)
	}
	return nil
}

// take takes out the messages that are left. Where the one who did it before has
// ended between a message and the note of its size, the size is what the queue has
// lost beside the others.
func (t *turn) take() error {
	attr, err := getAttr(t.fd)
	if err != nil {
		return err
	}
	at, bytes := turnHeader, uint64(0)
	for out := t.word(turnCount) - uint64(attr.messages); out > 0; out-- {
		if t.word(at+messageSize) == 0 {
			left, err := readQueue(t.fd)
			if err != nil {
				return err
			}
			t.put(at+messageSize, t.word(turnBytes)-uint64(left.bytes)-bytes+1)
		}
		bytes += t.word(at+messageSize) - 1
		at = t.next(at)
	}
	most := uintptr(t.word(turnMost))
	for range attr.messages {
		n, err := receive(t.fd, &t.memory[at+messageText], most, &t.memory[at+messagePrio])
		if err != nil {
			return err
		}
		t.put(at+messageSize, uint64(n)+1)
		at = t.next(at)
	}
	return nil
}

// send sends what the queue does not have again.
func (t *turn) send() error {
	attr, err := getAttr(t.fd)
	if err != nil {
		return err
	}
	at := turnHeader
	for i := range int64(t.word(turnCount)) {
		if i >= attr.messages {
			err := send1(t.fd, &t.memory[at+messageText], uintptr(t.word(at+messageSize)-1), uint32(t.word(at+messagePrio)))
			if err != nil {
				return err
			}
		}
		at = t.next(at)
	}
	return nil
}

// each calls fn with the messages of a turn that is done.
func (t *turn) each(fn func(prio uint32, text []byte) error) error {
	if t.word(turnPhase) != turnDone {
		return errors.New("not all messages were read")
	}
	at := turnHeader
	for range t.word(turnCount) {
		text := t.memory[at+messageText:][:t.word(at+messageSize)-1]
		if err := fn(uint32(t.word(at+messagePrio)), text); err != nil {
			return err
		}
		at = t.next(at)
	}
	return nil
}

// receive is mq_receive(3). The priority is written as 32 bits.
func receive(fd int, text *byte, most uintptr, prio *byte) (int, error) {
	for {
		n, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDRECEIVE, uintptr(fd), uintptr(unsafe.Pointer(text)), most, uintptr(unsafe.Pointer(prio)), 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("mq_receive", e)
		}
	}
}

// sendPatience bounds the wait for room in a queue. There is always room, unless
// the engine was killed and the container runs again before the turn has ended.
const sendPatience = time.Minute

// send1 is mq_send(3).
func send1(fd int, text *byte, n uintptr, prio uint32) error {
	for end := time.Now().Add(sendPatience); ; {
		_, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDSEND, uintptr(fd), uintptr(unsafe.Pointer(text)), n, uintptr(prio), 0, 0)
		switch {
		case e == 0:
			return nil
		case e == unix.EAGAIN && time.Now().Before(end):
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
		case e != unix.EINTR:
			return fmt.Errorf("send a message again: %w", os.NewSyscallError("mq_send", e))
		}
	}
}
