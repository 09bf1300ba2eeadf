// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// RestartKind says how a system call that our stop interrupted continues.
type RestartKind int

const (
	// RestartNone: the thread was in no interrupted call.
	RestartNone RestartKind = iota
	// RestartRewound: the call is made again, exactly.
	RestartRewound
	// RestartTimeout: the call is made again and its relative time-out
	// starts anew; who knows the remaining time may shorten it.
	RestartTimeout
	// RestartInterrupted: the call returns EINTR.
	RestartInterrupted
)

// In-kernel restart codes (include/linux/errno.h): visible to a tracer in
// rax, never to the program.
const (
	restartSys      = -512 // ERESTARTSYS
	restartNoIntr   = -513 // ERESTARTNOINTR
	restartNoHand   = -514 // ERESTARTNOHAND
	restartBlock    = -516 // ERESTART_RESTARTBLOCK
	interrupted     = -4   // EINTR
	syscallInsnSize = 2
)

// PendingHandler tells what signal handler, if any, runs before the thread
// continues.
type PendingHandler int

// The kinds of pending handlers.
const (
	NoHandler      PendingHandler = iota
	HandlerEINTR                  // without SA_RESTART
	HandlerRestart                // with SA_RESTART
)

// Restart returns the registers with which a thread, stopped with r, goes
// on without the kernel's help: what do_signal in arch/x86/kernel/signal.c
// would do, except that a restart block cannot be carried over. beforeRip
// holds the bytes before r.Rip (7 suffice, may be nil): they tell which call
// a restart_syscall(2) stands for.
func Restart(r amd64.Registers, h PendingHandler, beforeRip []byte) (amd64.Registers, RestartKind) {
	if !r.InSyscall() {
		return r, RestartNone
	}
	nr := r.OrigRax
	switch int64(r.Rax) {
	case restartNoIntr:
		return rewind(r, nr), RestartRewound
	case restartSys:
		if h == HandlerEINTR {
			return fail(r), RestartInterrupted
		}
		return rewind(r, nr), RestartRewound
	case restartNoHand:
		if h != NoHandler {
			return fail(r), RestartInterrupted
		}
		return rewind(r, nr), RestartRewound
	case restartBlock:
		if nr == unix.SYS_RESTART_SYSCALL {
			nr = callBefore(beforeRip)
		}
		if h != NoHandler || !hasRestartBlock(nr) {
			return fail(r), RestartInterrupted
		}
		if absoluteTimeout(nr, &r) {
			return rewind(r, nr), RestartRewound
		}
		return rewind(r, nr), RestartTimeout
	case interrupted:
		if h != NoHandler || !spuriousEINTR(nr) {
			return done(r), RestartNone
		}
		return rewind(r, nr), RestartTimeout
	}
	return done(r), RestartNone
}

func rewind(r amd64.Registers, nr uint64) amd64.Registers {
	r.Rip -= syscallInsnSize
	r.Rax, r.OrigRax = nr, amd64.NoSyscall
	return r
}

func fail(r amd64.Registers) amd64.Registers {
	code := int64(interrupted)
	r.Rax = uint64(code)
	return done(r)
}

// done leaves the result as it is and tells the kernel to do so too.
func done(r amd64.Registers) amd64.Registers {
	r.OrigRax = amd64.NoSyscall
	return r
}

// hasRestartBlock lists the calls that return ERESTART_RESTARTBLOCK.
func hasRestartBlock(nr uint64) bool {
	switch nr {
	case unix.SYS_POLL, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_FUTEX:
		return true
	}
	return false
}

// absoluteTimeout: of the calls with restart blocks only FUTEX_WAIT_BITSET
// and the PI locks take an absolute time.
func absoluteTimeout(nr uint64, r *amd64.Registers) bool {
	const futexWait, cmdMask = 0, 0x7f
	return nr == unix.SYS_FUTEX && r.Rsi&cmdMask != futexWait
}

// spuriousEINTR lists calls that return EINTR, not a restart code, when a
// stop alone interrupts them (signal(7), "interruption by stop signals",
// and the sources). The program sees an EINTR no signal of its own caused.
func spuriousEINTR(nr uint64) bool {
	switch nr {
	case unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2,
		unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP,
		unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS,
		// with SO_RCVTIMEO or SO_SNDTIMEO:
		unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG, unix.SYS_READ, unix.SYS_READV,
		unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_SENDTO, unix.SYS_SENDMSG,
		unix.SYS_WRITE, unix.SYS_WRITEV:
		return true
	}
	return false
}

// callBefore decodes "mov $nr,%eax; syscall", or the 64-bit form of the
// move, at the end of b. It returns NoSyscall if there is something else.
func callBefore(b []byte) uint64 {
	n := len(b)
	if n < 7 || b[n-2] != 0x0f || b[n-1] != 0x05 {
		return amd64.NoSyscall
	}
	short := b[n-7] == 0xb8
	long := n >= 9 && b[n-9] == 0x48 && b[n-8] == 0xc7 && b[n-7] == 0xc0
	if long || short {
		return uint64(binary.LittleEndian.Uint32(b[n-6:]))
	}
	return amd64.NoSyscall
}

// toldCall is the code of glibc's syscall(3) up to the call: mov rax,rdi; mov rdi,rsi;
// mov rsi,rdx; mov rdx,rcx; mov r10,r8; mov r8,r9; mov r9,[rsp+8]; syscall.
var toldCall = []byte{
	0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca,
	0x4d, 0x89, 0xc2, 0x4d, 0x89, 0xc8, 0x4c, 0x8b, 0x4c, 0x24, 8, 0x0f, 0x05,
}

// madeCall is what callBefore would decode for the number that code, which ends with
// a call of syscall(3), gives it: by the last "mov $nr,%edi". It is nil if that is
// not the number of a call that has a restart block.
func madeCall(code []byte) []byte {
	for i := len(code) - 5; i >= 0; i-- {
		if code[i] != 0xbf || code[i+2] != 0 || code[i+3] != 0 || code[i+4] != 0 {
			continue
		}
		nr := binary.LittleEndian.Uint32(code[i+1:])
		if !hasRestartBlock(uint64(nr)) {
			return nil
		}
		return append(binary.LittleEndian.AppendUint32([]byte{0xb8}, nr), 0x0f, 0x05)
	}
	return nil
}
