// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/state"
)

// host reads a clock of the engine's own time namespace, in nanoseconds.
func host(clock int32) (int64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return t.Nano(), nil
}

// clocks of a time namespace, by the names that timens_offsets has for them.
var clocks = []struct {
	name string
	id   int32
	of   func(*state.Clocks) *int64
}{
	{"monotonic", unix.CLOCK_MONOTONIC, func(m *state.Clocks) *int64 { return &m.Monotonic }},
	{"boottime", unix.CLOCK_BOOTTIME, func(m *state.Clocks) *int64 { return &m.Boottime }},
}

// hostClocks reads the clocks of the engine's own time namespace, in nanoseconds, in
// the order of clocks.
func hostClocks() (now [2]int64, err error) {
	for i, c := range clocks {
		if now[i], err = host(c.id); err != nil {
			return now, err
		}
	}
	return now, nil
}

// read tells the clocks as process pid sees them.
func read(pid int) (*state.Clocks, error) {
	own, err := offsetsOf(self())
	if err != nil {
		return nil, err
	}
	its, err := offsetsOf(procfs.Host().Process(pid))
	if err != nil {
		return nil, err
	}
	m := &state.Clocks{}
	now, err := hostClocks()
	if err != nil {
		return nil, err
	}
	for i, c := range clocks {
		*c.of(m) = now[i] - own[i] + its[i]
	}
	return m, nil
}

// self is the engine.
func self() procfs.Task { return procfs.Host().Process(os.Getpid()) }

// offsets to the clocks of the host, in nanoseconds, in the order of clocks.
type offsets [2]int64

// offsetsOf reads those of a process. Without time namespaces in the kernel
// there are none.
func offsetsOf(t procfs.Task) (o offsets, err error) {
	list, err := t.TimensOffsets()
	if procfs.IsGone(err) {
		return o, nil
	}
	if err != nil {
		return o, fmt.Errorf("offsets of a time namespace: %w", err)
	}
	for _, l := range list {
		for i, c := range clocks {
			if c.name == l.Clock {
				o[i] = l.Sec*int64(time.Second) + l.Nsec
			}
		}
	}
	return o, nil
}

// text is what timens_offsets takes: whole seconds, which may be negative, and
// nanoseconds, which may not.
func (o offsets) text() string {
	out := ""
	for i, c := range clocks {
		sec, nsec := o[i]/int64(time.Second), o[i]%int64(time.Second)
		if nsec < 0 {
			sec, nsec = sec-1, nsec+int64(time.Second)
		}
		out += fmt.Sprintf("%s %d %d\n", c.name, sec, nsec)
	}
	return out
}
