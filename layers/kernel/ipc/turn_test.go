// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is one of a queue.
type message struct {
	prio uint32
	text string
}

// enterNamespace gives the test an IPC namespace, which ends with its thread.
func enterNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make an IPC namespace")
	}
	runtime.LockOSThread() // and never unlocked
	if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/fs/mqueue/msg_max", []byte("1000"), 0); err != nil { // the new one's
		t.Fatal(err)
	}
}

// newQueue makes a queue with messages of all priorities, empty ones too, and
// returns them in the order in which they will be received.
func newQueue(t *testing.T, name string, n int) (fd int, want []message) {
	t.Helper()
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		t.Fatal(err)
	}
	attr := queueAttr{maxMessages: int64(n), messageSize: 128}
	q, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(path)), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NONBLOCK, 0o600, uintptr(unsafe.Pointer(&attr)), 0, 0)
	if e != 0 {
		t.Fatal(os.NewSyscallError("mq_open", e))
	}
	var room [128]byte
	for i := range n {
		m := message{rand.Uint32N(3) * 7, fmt.Sprintf("%*d", rand.IntN(100), i)}
		if i%10 == 0 {
			m.text = ""
		}
		copy(room[:], m.text)
		if err := send1(int(q), &room[0], uintptr(len(m.text)), m.prio); err != nil {
			t.Fatal(err)
		}
		want = append(want, m)
	}
	slices.SortStableFunc(want, func(a, b message) int { return int(b.prio) - int(a.prio) })
	return int(q), want
}

// TestTurnOutlivesItsHelper kills the helper at random moments: what it has left
// the engine finishes, and neither the copies nor the queue miss anything.
func TestTurnOutlivesItsHelper(t *testing.T) {
	const rounds, messages = 60, 400
	var took, sent int
	enterNamespace(t)
	fd, want := newQueue(t, "jobs", messages)
	root, err := queueMount()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for round := range rounds {
		q, err := lookQueue(root, "jobs")
		if err != nil {
			t.Fatal(err)
		}
		phase, got, err := killedTurn(fd, &q)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		took, sent = took+b2i(phase == turnTakes), sent+b2i(phase == turnSends)
		if !slices.Equal(got, want) {
			t.Fatalf("round %d, killed in phase %d: the messages read are not those that were sent: %v, want %v", round, phase, got, want)
		}
	}
	var left []message
	q, err := lookQueue(root, "jobs")
	if err == nil {
		err = readMessages(root, &q, func(prio uint32, text []byte) error {
			left = append(left, message{prio, string(text)})
			return nil
		})
	}
	if err != nil || !slices.Equal(left, want) {
		t.Errorf("in the end the queue holds %v, %v", left, err)
	}
	t.Logf("of %d helpers %d were killed with messages out, %d while they sent", rounds, took, sent)
	if took == 0 || sent == 0 {
		t.Errorf("no helper was killed in a phase: taking %d, sending %d", took, sent)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// killedTurn makes a turn whose helper is killed once it has taken some messages
// out, or sent some; it says in which phase.
func killedTurn(fd int, q *posixQueue) (phase uint64, got []message, err error) {
	file, err := unix.MemfdCreate("turn", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, nil, err
	}
	defer unix.Close(file)
	if err := unix.Ftruncate(file, turnSize(q)); err != nil {
		return 0, nil, err
	}
	memory, err := unix.Mmap(file, 0, int(turnSize(q)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, nil, err
	}
	defer unix.Munmap(memory)
	t := newTurn(fd, q, memory)
	pid, err := startTurn(file, fd)
	if err != nil {
		return 0, nil, err
	}
	sending, after := rand.IntN(2) == 1, rand.Uint64N(uint64(q.attr.messages))
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		a, err := getAttr(fd)
		if err != nil {
			return 0, nil, err
		}
		out := uint64(q.attr.messages - a.messages)
		now := t.word(turnPhase)
		if now == turnDone || !sending && out > after || sending && now == turnSends && out <= after {
			break
		}
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return 0, nil, err
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		return 0, nil, err
	}
	if a, err := getAttr(fd); err != nil || a.messages == q.attr.messages {
		phase = turnDone
	} else {
		phase = t.word(turnPhase)
	}
	if err := t.run(); err != nil {
		return phase, nil, err
	}
	return phase, got, t.each(func(prio uint32, text []byte) error {
		got = append(got, message{prio, string(text)})
		return nil
	})
}

// TestTurnIsFinishedAtEveryStep: what a turn needs to know is in its memory and
// in the queue, wherever it was left.
func TestTurnIsFinishedAtEveryStep(t *testing.T) {
	const n = 12
	enterNamespace(t)
	fd, want := newQueue(t, "steps", n)
	root, err := queueMount()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for taken := range n {
		q, err := lookQueue(root, "steps")
		if err != nil {
			t.Fatal(err)
		}
		memory := make([]byte, turnSize(&q))
		a := newTurn(fd, &q, memory)
		at := turnHeader
		for i := range taken + 1 {
			size, err := receive(fd, &memory[at+messageText], uintptr(q.attr.messageSize), &memory[at+messagePrio])
			if err != nil {
				t.Fatal(err)
			}
			if i == taken {
				break // killed before it could note the size
			}
			a.put(at+messageSize, uint64(size)+1)
			at = a.next(at)
		}
		var got []message
		if err := a.run(); err != nil {
			t.Fatal(err)
		}
		err = a.each(func(prio uint32, text []byte) error {
			got = append(got, message{prio, string(text)})
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("left after message %d: %v, %v", taken, got, err)
		}
	}
}
