// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import "golang.org/x/sys/unix"

// signalSets are the sets of /proc/PID/status, bit n-1 for signal n.
type signalSets struct {
	Blocked, Ignored, Caught, Pending, SharedPending uint64
}

func sigBit(sig int) uint64 { return 1 << (sig - 1) }

// stopSignal chooses the signal with which a batch ends: sent to the thread
// by itself it stops a tracee whatever its disposition, and if the tracer is
// dead it does nothing. So it must be ignored by the program, explicitly or
// by default, and neither blocked (a signalfd or sigwait may take it) nor
// pending. 0: there is none, calls must be made one by one.
func stopSignal(s signalSets) int {
	free := func(sig int) bool {
		return (s.Caught|s.Blocked|s.Pending|s.SharedPending)&sigBit(sig) == 0
	}
	// SIGCONT, the fourth signal ignored by default, would undo a stop.
	for _, sig := range []unix.Signal{unix.SIGWINCH, unix.SIGURG, unix.SIGCHLD} {
		if free(int(sig)) {
			return int(sig)
		}
	}
	for sig := 1; sig <= 64; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
			unix.SIGTRAP, unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGSYS:
			continue
		}
		if s.Ignored&sigBit(sig) != 0 && free(sig) {
			return sig
		}
	}
	return 0
}
