// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// tfdSetTicks is TFD_IOC_SET_TICKS, _IOW('T', 0, __u64) of
// include/uapi/linux/timerfd.h (CONFIG_CHECKPOINT_RESTORE).
const tfdSetTicks = 0x40085400

// startTimers starts the process's timerfds: those that it has only for a while,
// before the others.
func (s *Subsystem) startTimers(id record.ProcessID, transit bool) error {
	t, err := s.env.Frame.Stopped(id)
	if err != nil {
		return err
	}
	p := t.Plan()
	for _, desc := range s.mine(id) {
		// What was in transit is there no longer when the others are started.
		if m, ok := s.in[desc].(*state.EventTimer); ok && len(t.Table.Slots(desc)) > 0 && t.Table.InTransit(desc) == transit {
			start(p, t.Table.Slots(desc)[0].FD, m)
		}
	}
	if err := p.Run(); err != nil {
		return fmt.Errorf("start the timers of process %d: %w", id, err)
	}
	return nil
}

// start sets a timer to what was left of it, then its unread expirations.
//
// A periodic timer that has expired is not running until it is read
// (fs/timerfd.c, timerfd_tmrproc), and shows nothing left. It is set to expire
// at once, which is its last expiration once more.
func start(p *target.Plan, fd int, m *state.EventTimer) {
	value, flags, ticks := m.Remaining, uint64(0), m.Ticks
	switch {
	case m.Remaining == 0 && m.Interval > 0 && m.Ticks > 0:
		value = 1
		if ticks == 1 {
			ticks = 0
		}
	case m.Remaining > 0 && absolute(m):
		// The flag to be told of a change of the clock needs an absolute time.
		value, flags = uint64(m.Expiry), uint64(m.SettimeFlags)
	}
	if value > 0 || m.Interval > 0 {
		spec := p.Put(itimerspec(value, m.Interval))
		p.Call(tracer.Syscall(unix.SYS_TIMERFD_SETTIME, uint64(fd), flags, spec, 0))
	}
	if ticks > 0 {
		p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), tfdSetTicks, p.Put(binary.LittleEndian.AppendUint64(nil, ticks))))
	}
}

// itimerspec is struct itimerspec: the interval, then the value.
func itimerspec(value, interval uint64) []byte {
	var b []byte
	for _, n := range []uint64{interval / 1e9, interval % 1e9, value / 1e9, value % 1e9} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}
