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
// by default, and not be pending. Best is one that no thread blocks; one that
// is blocked may be wanted by a signalfd or sigwait, and await is careful
// with it. 0: there is none, the thread must stop at every call.
func stopSignal(s signalSets) (sig int, blocked bool) {
	if sig := pickSignal(s.Ignored, s.Caught|s.Pending|s.SharedPending|s.Blocked, unix.SIGWINCH, unix.SIGURG, unix.SIGCHLD); sig != 0 {
		return sig, false
	}
	// SIGCHLD is what blocked signals are mostly read for.
	taken := s.Caught | s.Pending | s.SharedPending | sigBit(int(unix.SIGCHLD))
	sig = pickSignal(s.Ignored, taken, unix.SIGWINCH, unix.SIGURG)
	return sig, sig != 0
}

// pickSignal takes the first of the signals ignored by default, else one the
// program ignores, that is not taken. SIGCONT, ignored by default too, would
// undo a stop.
func pickSignal(ignored, taken uint64, defaults ...unix.Signal) int {
	for _, sig := range defaults {
		if taken&sigBit(int(sig)) == 0 {
			return int(sig)
		}
	}
	for sig := 1; sig <= 64; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
			unix.SIGTRAP, unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGSYS:
			continue
		}
		if ignored&^taken&sigBit(sig) != 0 {
			return sig
		}
	}
	return 0
}
