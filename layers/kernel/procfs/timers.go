// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// TimerNotify is a POSIX timer's sigev_notify without SIGEV_THREAD_ID.
type TimerNotify uint8

// How a timer tells of its expiry, with the values of SIGEV_*.
const (
	NotifySignal TimerNotify = 0
	NotifyNone   TimerNotify = 1
	NotifyThread TimerNotify = 2 // user space's affair: the kernel sends a signal
)

// Timer is one entry of /proc/PID/timers (fs/proc/base.c, show_timer). What is
// left of its interval is not there: timer_gettime(2) in the task.
type Timer struct {
	ID       int
	Signal   int
	Value    uint64 // sigev_value
	Notify   TimerNotify
	ByThread bool // SIGEV_THREAD_ID: Target is a thread, else a process
	Target   int  // pid or tid; 0 if that task is gone
	ClockID  int  // negative for the clocks of a task or device
}

// ParseTimers reads /proc/PID/timers, four lines a timer.
func ParseTimers(data []byte) ([]Timer, error) {
	var p timersParser
	if err := eachLine("timers", data, p.line); err != nil {
		return nil, err
	}
	if p.step != 0 {
		return nil, parseError("timers", 0, data, errors.New("the last timer is incomplete"))
	}
	return p.out, nil
}

type timersParser struct {
	out  []Timer
	step int // which of the four lines is next
}

func (p *timersParser) line(line []byte) error {
	c := cursor{rest: line}
	switch p.step {
	case 0:
		c.literal("ID: ")
		p.out = append(p.out, Timer{ID: c.int("id")})
	case 1:
		t := &p.out[len(p.out)-1]
		c.literal("signal: ")
		t.Signal = int(c.signed(c.until('/', "signal"), 32, "signal"))
		t.Value = c.hex("value")
	case 2:
		c.literal("notify: ")
		p.out[len(p.out)-1].notify(&c)
	case 3:
		c.literal("ClockID: ")
		p.out[len(p.out)-1].ClockID = c.int("clock id")
	}
	p.step = (p.step + 1) % 4
	return c.end()
}

// notify reads "signal/tid.123".
func (t *Timer) notify(c *cursor) {
	switch how := c.until('/', "notification"); {
	case c.err != nil:
	case bytes.Equal(how, []byte("signal")):
		t.Notify = NotifySignal
	case bytes.Equal(how, []byte("none")):
		t.Notify = NotifyNone
	case bytes.Equal(how, []byte("thread")):
		t.Notify = NotifyThread
	default:
		c.err = fmt.Errorf("unknown notification %q", how)
	}
	switch kind := c.until('.', "target"); {
	case c.err != nil:
	case bytes.Equal(kind, []byte("tid")):
		t.ByThread = true
	case !bytes.Equal(kind, []byte("pid")):
		c.err = fmt.Errorf("unknown target %q", kind)
	}
	t.Target = c.int("target")
}
