// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// loopCode makes r12 calls of the array at rbx, then returns by rt_sigreturn
// from the frame at r13 - 8. Before each call it looks whether the word at r14 is
// r15, and returns if it is not (guard). From the look to the call it is one
// restartable sequence, rbp being where the thread's rseq_cs lies: a thread that is
// interrupted in there looks again. Only the registers named change beside those a
// system call clobbers, and no stack is used.
//
//	loop:  lea rax,[rip+section]; mov [rbp],rax
//	       cmp [r14],r15d;   jne done
//	       mov rax,[rbx];    mov rdi,[rbx+8];  mov rsi,[rbx+16]; mov rdx,[rbx+24]
//	       mov r10,[rbx+32]; mov r8,[rbx+40];  mov r9,[rbx+48]
//	       syscall
//	       mov [rbx+56],rax; add rbx,64;       dec r12;          jnz loop
//	done:  mov qword [rbp],0
//	back:  mov rsp,r13;      mov eax,15;       syscall
var loopCode = []byte{
	0x48, 0x8d, 0x05, 0xd9, 0xff, 0xff, 0xff, 0x48, 0x89, 0x45, 0,
	0x45, 0x39, 0x3e, 0x75, 0x2a,
	0x48, 0x8b, 0x03, 0x48, 0x8b, 0x7b, 8, 0x48, 0x8b, 0x73, 16, 0x48, 0x8b, 0x53, 24,
	0x4c, 0x8b, 0x53, 32, 0x4c, 0x8b, 0x43, 40, 0x4c, 0x8b, 0x4b, 48,
	0x0f, 0x05,
	0x48, 0x89, 0x43, 56, 0x48, 0x83, 0xc3, 64, 0x49, 0xff, 0xcc, 0x75, 0xc6,
	0x48, 0xc7, 0x45, 0, 0, 0, 0, 0,
	0x4c, 0x89, 0xec, 0xb8, 15, 0, 0, 0, 0x0f, 0x05,
}

// Offsets in loopCode: the look, behind the system call, and the way out and back.
const (
	loopLook      = 11
	loopAfterCall = 45
	loopDone      = 58
	loopWayBack   = 66
)

// abortCode follows the four bytes by which the kernel knows that code may be
// jumped to when a restartable sequence was interrupted: jmp loop.
var abortCode = []byte{0xeb, 0x8a}

// stubCode is put at the program's entry point when no gadget exists:
// syscall; ret; mov eax,15; syscall.
var stubCode = []byte{0x0f, 0x05, 0xc3, 0xb8, 15, 0, 0, 0, 0x0f, 0x05}

const stubRestorer = 3 // offset of rt_sigreturn in stubCode

// The scratch area: one code page, data behind it.
//
//	0   magic, 16 bytes
//	16  time of creation, CLOCK_MONOTONIC nanoseconds
//	24  the word of the guard, where there is one
//	32  struct rseq_cs of the loop
//	64  loopCode
//	180 abortCode
//	192 stubCode
//
// A successor recognises what a dead tracer left behind by the magic.
const (
	pageSize       = 4096
	scratchMagic   = "mig-scratch-v1\r\n"
	scratchStamp   = 16
	scratchGuard   = 24
	scratchSection = 32
	scratchLoop    = 64
	scratchAbort   = 180
	scratchStub    = 192
	scratchMaxLen  = 1 << 30 // address room kept free for growth
)

// codePage is the code page for address base. signature is what the process's
// threads have registered for restartable sequences.
func codePage(base, stamp uint64, signature uint32) []byte {
	le := binary.LittleEndian
	b := make([]byte, scratchStub+len(stubCode))
	copy(b, scratchMagic)
	le.PutUint64(b[scratchStamp:], stamp)
	le.PutUint64(b[scratchSection+8:], base+scratchLoop+loopLook) // version and flags are 0
	le.PutUint64(b[scratchSection+16:], loopAfterCall-loopLook)
	le.PutUint64(b[scratchSection+24:], base+scratchAbort)
	copy(b[scratchLoop:], loopCode)
	le.PutUint32(b[scratchAbort-4:], signature)
	copy(b[scratchAbort:scratchStub], abortCode)
	copy(b[scratchStub:], stubCode)
	return b
}

// plainFlags for injected code: no single-step, no alignment check.
const plainFlags = 0x202

// loopRegisters are the registers that run n calls at calls in the scratch
// page at base, with the way back through frame.
func loopRegisters(r amd64.Registers, base, calls uint64, n int, frame uint64) amd64.Registers {
	r.Rip, r.Rbx, r.R12, r.R13 = base+scratchLoop, calls, uint64(n), frame+8
	r.R14, r.R15 = base, noGuard
	r.Rbp = calls + uint64(n)*CallSize - 8 // nobody reads the last call's result
	r.Eflags, r.OrigRax = plainFlags, amd64.NoSyscall
	return r
}

// parkRegisters are the registers that do nothing but return through frame.
func parkRegisters(r amd64.Registers, base, frame uint64) amd64.Registers {
	r = loopRegisters(r, base, 0, 0, frame)
	r.Rip += loopWayBack
	return r
}

// loopEnded says whether r stands behind the last call of the loop at base.
func loopEnded(r *amd64.Registers, base uint64) bool {
	return r.Rip == base+scratchLoop+loopAfterCall && r.R12 == 1
}

// stubRegisters are the registers that make one call at gadget ("syscall;
// ret") and return onto frame, whose first word leads to rt_sigreturn.
func stubRegisters(r amd64.Registers, gadget, frame uint64, c *Call) amd64.Registers {
	r.Rip, r.Rsp, r.Rax = gadget, frame, c.Nr
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5]
	r.Eflags, r.OrigRax = plainFlags, amd64.NoSyscall
	return r
}
