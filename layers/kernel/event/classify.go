// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// refusal is something that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

// classify turns a descriptor into its record, or into a *refusal. It looks at
// nothing but the descriptor, so the pre-flight and the export say the same.
// init is the container's first process.
// The targets of an epoll instance are found by the export (see watched), those
// of an inotify instance and a fanotify group by both (see describeWatches and
// describeMarks).
func classify(d *target.Descriptor, init int) (kind uint32, msg proto.Message, err error) {
	flags := uint32(d.Flags & eventFlags)
	switch {
	case d.Link.Kind == procfs.FDEventfd && d.Info.Eventfd != nil:
		e := d.Info.Eventfd
		if e.Count == math.MaxUint64 {
			return 0, nil, &refusal{"eventfd", "its counter has overflowed", ""}
		}
		return KindCounter, &state.EventCounter{Flags: flags, Count: e.Count, Semaphore: e.Semaphore}, nil
	case d.Link.Kind == procfs.FDTimerfd && d.Info.Timerfd != nil:
		msg, err := timer(d.Info.Timerfd, flags)
		return KindTimer, msg, err
	case d.Link.Kind == procfs.FDSignalfd && d.Info.Signalfd != nil:
		return KindSignal, &state.EventSignal{Flags: flags, Mask: *d.Info.Signalfd}, nil
	case d.Link.Kind == procfs.FDPidfd && d.Info.Pidfd != nil:
		msg, err := process(d.Info.Pidfd, uint32(d.Flags&processFlags), init)
		return KindProcess, msg, err
	case d.Link.Kind == procfs.FDInotify:
		return KindFiles, &state.EventFiles{Flags: flags}, nil
	case d.Link.Kind == procfs.FDFanotify && d.Info.Fanotify != nil:
		msg, err := group(d.Info.Fanotify, flags)
		return KindGroup, msg, err
	case d.Link.Kind == procfs.FDEpoll:
		return KindPoll, &state.EventPoll{Flags: flags}, nil
	}
	return 0, nil, &refusal{d.Link.Kind.String(), "the kernel does not show its state", "use a newer kernel"}
}

// eventFlags are the flags that such a description can have.
const eventFlags = unix.O_ACCMODE | target.StatusFlags

// timer describes a timerfd. What is left is the same on every clock; only a
// timer set to a time of the calendar is carried as that time, since the
// calendar goes on while the image is stored.
func timer(t *procfs.TimerfdInfo, flags uint32) (*state.EventTimer, error) {
	if !clocks[uint32(t.ClockID)] {
		return nil, &refusal{"timerfd", fmt.Sprintf("clock %d is not known", t.ClockID), ""}
	}
	msg := &state.EventTimer{
		Flags: flags, Clock: uint32(t.ClockID), SettimeFlags: t.SettimeFlags, Ticks: t.Ticks,
		Remaining: nanoseconds(t.Value), Interval: nanoseconds(t.Interval),
	}
	if absolute(msg) && msg.Remaining > 0 {
		msg.Expiry = time.Now().UnixNano() + int64(msg.Remaining)
	}
	return msg, nil
}

// clocks that timerfd_create(2) takes.
var clocks = map[uint32]bool{
	unix.CLOCK_REALTIME: true, unix.CLOCK_MONOTONIC: true, unix.CLOCK_BOOTTIME: true,
	unix.CLOCK_REALTIME_ALARM: true, unix.CLOCK_BOOTTIME_ALARM: true,
}

// absolute: the timer was set to a time of the calendar.
func absolute(t *state.EventTimer) bool {
	return t.SettimeFlags&unix.TFD_TIMER_ABSTIME != 0 &&
		(t.Clock == unix.CLOCK_REALTIME || t.Clock == unix.CLOCK_REALTIME_ALARM)
}

func nanoseconds(t procfs.Timespec) uint64 { return uint64(t.Sec)*1e9 + uint64(t.Nsec) }
