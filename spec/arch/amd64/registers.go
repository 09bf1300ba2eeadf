// SPDX-License-Identifier: Apache-2.0

// Package amd64 describes the architectural state of an x86-64 thread as
// data: the general registers as ptrace reports them and the layout of an
// XSAVE area. It holds no mechanism and no build tag, so that any machine
// can decode and inspect an image made on x86-64.
package amd64

import (
	"encoding/binary"
	"fmt"
)

// Registers are the general registers in the order of the kernel's struct
// user_regs_struct (arch/x86/include/asm/user_64.h), which is what
// PTRACE_GETREGS, PTRACE_SETREGS and NT_PRSTATUS carry. The Go layout equals
// the kernel's byte for byte.
type Registers struct {
	R15, R14, R13, R12 uint64
	Rbp, Rbx           uint64
	R11, R10, R9, R8   uint64
	Rax, Rcx, Rdx      uint64
	Rsi, Rdi           uint64
	// OrigRax is the number of the system call the thread is in, or
	// all ones when it is in none: the kernel's restart logic reads it.
	OrigRax uint64
	Rip     uint64
	Cs      uint64
	Eflags  uint64
	Rsp     uint64
	Ss      uint64
	FsBase  uint64
	GsBase  uint64
	Ds, Es  uint64
	Fs, Gs  uint64
}

// RegistersSize is the encoded size of Registers in bytes.
const RegistersSize = 27 * 8

// NoSyscall is the value of OrigRax outside a system call.
const NoSyscall = ^uint64(0)

// Code segment selectors of user mode (arch/x86/include/asm/segment.h).
const (
	UserCS   = 0x33 // 64-bit code
	UserCS32 = 0x23 // compatibility mode
	UserSS   = 0x2b
)

// InSyscall says whether the thread stopped inside a system call.
func (r *Registers) InSyscall() bool { return int64(r.OrigRax) >= 0 }

// Is32Bit says whether the thread runs in compatibility mode.
func (r *Registers) Is32Bit() bool { return r.Cs == UserCS32 }

func (r *Registers) fields() [27]*uint64 {
	return [27]*uint64{
		&r.R15, &r.R14, &r.R13, &r.R12, &r.Rbp, &r.Rbx, &r.R11, &r.R10, &r.R9,
		&r.R8, &r.Rax, &r.Rcx, &r.Rdx, &r.Rsi, &r.Rdi, &r.OrigRax, &r.Rip, &r.Cs,
		&r.Eflags, &r.Rsp, &r.Ss, &r.FsBase, &r.GsBase, &r.Ds, &r.Es, &r.Fs, &r.Gs,
	}
}

// AppendBinary appends the kernel's little-endian form of r to b.
func (r *Registers) AppendBinary(b []byte) ([]byte, error) {
	for _, f := range r.fields() {
		b = binary.LittleEndian.AppendUint64(b, *f)
	}
	return b, nil
}

// MarshalBinary returns the kernel's little-endian form of r.
func (r *Registers) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// UnmarshalBinary sets r from the kernel's little-endian form.
func (r *Registers) UnmarshalBinary(b []byte) error {
	if len(b) != RegistersSize {
		return fmt.Errorf("amd64 registers: %d bytes, want %d", len(b), RegistersSize)
	}
	for i, f := range r.fields() {
		*f = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}
