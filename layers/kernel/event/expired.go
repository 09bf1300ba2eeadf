// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// countTries bounds how often a timer may expire between two looks at it.
const countTries = 4

// count makes a periodic timerfd that has expired show how often. Such a timer
// stands still until its reader comes, who is told the expirations since then;
// fdinfo shows one of them. timerfd_gettime(2) counts them as the reader would
// and lets the timer go on (fs/timerfd.c, do_timerfd_gettime), which the
// application cannot tell from its own expiry.
func count(p *target.Process, d *target.Descriptor) error {
	for range countTries {
		t := d.Info.Timerfd
		if t == nil || nanoseconds(t.Interval) == 0 || nanoseconds(t.Value) > 0 || t.Ticks == 0 {
			return nil
		}
		if err := getTime(p, d); err != nil {
			return err
		}
		var err error
		if d.Info, err = procfs.Host().Process(d.Holder).FDInfo(d.FD); err != nil {
			return err
		}
	}
	// An interval of microseconds: what is shown now is as good as any moment.
	return nil
}

func getTime(p *target.Process, d *target.Descriptor) error {
	own, err := p.Open(d)
	if err != nil {
		return err
	}
	defer own.Close()
	var now [4]int64 // struct itimerspec
	if _, _, errno := unix.Syscall(unix.SYS_TIMERFD_GETTIME, own.Fd(), uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		return fmt.Errorf("timerfd_gettime: %w", errno)
	}
	return nil
}

func isTimer(d *target.Descriptor) bool { return d.Link.Kind == procfs.FDTimerfd }
