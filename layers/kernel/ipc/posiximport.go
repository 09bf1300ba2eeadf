// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// openQueue is a POSIX message queue on its way in.
type openQueue struct {
	msg *state.PosixQueue
	fd  int // of the first process, by which messages are sent; -1: closed
}

// makePosixQueue makes a queue as its owner, who may write to what he makes
// whatever its mode is.
func (s *Subsystem) makePosixQueue(t *target.Task, in *record.Record) error {
	m, err := decodePosixQueue(in)
	if err != nil {
		return err
	}
	if in.Entity != uint64(len(s.posix)+1) {
		return fmt.Errorf("%w: POSIX message queue number %d in place of %d", errImage, in.Entity, len(s.posix)+1)
	}
	attr := queueAttr{maxMessages: m.MaxMessages, messageSize: m.MessageSize}
	p := t.Plan()
	name, at := p.PutString(string(m.Name)), p.Put(attr.encode())
	p.AsUser(m.Uid, m.Gid)
	fd := p.Open(tracer.Syscall(unix.SYS_MQ_OPEN, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, uint64(m.Mode), at))
	p.Call(tracer.Syscall(unix.SYS_FCHMOD, uint64(fd), uint64(m.Mode)))
	p.AsRoot()
	if err := p.Run(); err != nil {
		return fmt.Errorf("make POSIX message queue /%s (do /proc/sys/fs/mqueue and RLIMIT_MSGQUEUE allow it?): %w", m.Name, err)
	}
	t.Table.Keep(fd)
	s.posix = append(s.posix, &openQueue{m, fd})
	return nil
}

// sendPosixMessages fills a queue. It is the process itself that sends, so that
// the messages are charged to the container.
func (s *Subsystem) sendPosixMessages(t *target.Task, in *record.Record) error {
	m, err := decodePosixMessages(in)
	if err != nil {
		return err
	}
	if in.Entity == 0 || in.Entity > uint64(len(s.posix)) || s.posix[in.Entity-1].fd < 0 {
		return fmt.Errorf("%w: messages of a POSIX queue that was not announced", errImage)
	}
	q := s.posix[in.Entity-1]
	for _, o := range m.Message {
		if int64(len(o.Text)) > q.msg.MessageSize {
			return fmt.Errorf("%w: a message of %d bytes in POSIX queue %q, which takes %d", errImage, len(o.Text), q.msg.Name, q.msg.MessageSize)
		}
	}
	for len(m.Message) > 0 {
		n := min(len(m.Message), sendAtOnce)
		p := t.Plan()
		for _, o := range m.Message[:n] {
			p.Expect(tracer.Syscall(unix.SYS_MQ_TIMEDSEND, uint64(q.fd), p.Put(o.Text), uint64(len(o.Text)), uint64(o.Priority), p.Put(make([]byte, timespecSize))), 0)
		}
		if err := p.Run(); err != nil {
			return fmt.Errorf("send the messages of POSIX message queue /%s again: %w", q.msg.Name, err)
		}
		m.Message = m.Message[n:]
	}
	return nil
}

// timespecSize is that of struct timespec: a time-out that is over, so that no
// image makes the frame wait for room.
const timespecSize = 16
