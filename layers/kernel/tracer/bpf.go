// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// A thread whose call was interrupted by our stop makes restart_syscall(2) where
// the kernel has to know when the call began. A filter that does not expect that,
// as the program never calls it, would kill it for being stopped.

// hatesRestart: the thread's filters do not let restart_syscall(2) pass.
func (p *Process) hatesRestart(th *Thread, r *amd64.Registers) bool {
	var sizes []byte // of its filters, which tells nearly all chains of a process apart
	for n := 0; ; n++ {
		size, err := ptraceFilterSize(th.Tid, n)
		if err != nil {
			break // ENOENT; EINVAL: it has none
		}
		sizes = binary.LittleEndian.AppendUint16(sizes, uint16(size))
	}
	if len(sizes) == 0 {
		return false
	}
	if hates, ok := p.restartHaters[string(sizes)]; ok {
		return hates
	}
	data := seccompData(unix.SYS_RESTART_SYSCALL, r)
	hates := false
	for n := range len(sizes) / 2 {
		f, err := ptraceFilter(th.Tid, n)
		if err != nil || !passes(f.Code, data) {
			hates = true
			break
		}
	}
	if p.restartHaters == nil {
		p.restartHaters = map[string]bool{}
	}
	p.restartHaters[string(sizes)] = hates
	return hates
}

// auditArch is AUDIT_ARCH_X86_64 of include/uapi/linux/audit.h.
const auditArch = 0xc000003e

// seccompData is struct seccomp_data of include/uapi/linux/seccomp.h.
func seccompData(nr uint32, r *amd64.Registers) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(nil, nr), auditArch)
	for _, v := range []uint64{r.Rip, r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// passes: the filter allows a call, with a mark in the log or without.
func passes(code, data []byte) bool {
	const actionFull = 0xffff0000 // SECCOMP_RET_ACTION_FULL
	ret, err := runFilter(code, data)
	action := ret & actionFull
	return err == nil && (action == unix.SECCOMP_RET_ALLOW || action == unix.SECCOMP_RET_LOG)
}

// kills: the filter kills for a call, or has the thread handle a signal in place of it.
func kills(code, data []byte) bool {
	const actionFull = 0xffff0000 // SECCOMP_RET_ACTION_FULL
	ret, err := runFilter(code, data)
	if err != nil {
		return true
	}
	switch ret & actionFull {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_ERRNO, unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_USER_NOTIF:
		return false
	}
	return true
}

// diesOf: were it not for the tracer, a filter would kill the thread for one of calls.
func (th *Thread) diesOf(calls []Call) bool {
	for n := 0; ; n++ {
		f, err := ptraceFilter(th.Tid, n)
		switch {
		case errors.Is(err, unix.ENOENT):
			return false
		case errors.Is(err, unix.EINVAL): // it has none, but may be in strict mode
			return th.p.seccomp && th.Tid == th.p.via()
		case err != nil:
			return true
		}
		for _, c := range calls {
			r := amd64.Registers{Rdi: c.Args[0], Rsi: c.Args[1], Rdx: c.Args[2], R10: c.Args[3], R8: c.Args[4], R9: c.Args[5]}
			if kills(f.Code, seccompData(uint32(c.Nr), &r)) {
				return true
			}
		}
	}
}

// errFilter: no filter that the kernel has taken.
var errFilter = errors.New("not a seccomp filter")

// machine is the state of classic BPF as seccomp has it (seccomp_check_filter of
// kernel/seccomp.c lists the instructions).
type machine struct {
	a, x uint32
	mem  [16]uint32
}

// runFilter returns what a filter returns for data.
func runFilter(code, data []byte) (uint32, error) {
	var m machine
	for pc := 0; pc < len(code)/SockFilterSize; pc++ {
		b := code[pc*SockFilterSize:]
		op, jt, jf, k := binary.LittleEndian.Uint16(b), int(b[2]), int(b[3]), binary.LittleEndian.Uint32(b[4:])
		switch op & 7 {
		case unix.BPF_RET:
			if op&0x18 == unix.BPF_A {
				return m.a, nil
			}
			return k, nil
		case unix.BPF_JMP:
			if op&0xf0 == unix.BPF_JA {
				pc += int(k)
			} else if m.jumps(op, k) {
				pc += jt
			} else {
				pc += jf
			}
		default:
			if err := m.step(op, k, data); err != nil {
				return 0, err
			}
		}
	}
	return 0, errFilter
}

func (m *machine) jumps(op uint16, k uint32) bool {
	if op&unix.BPF_X != 0 {
		k = m.x
	}
	switch op & 0xf0 {
	case unix.BPF_JEQ:
		return m.a == k
	case unix.BPF_JGT:
		return m.a > k
	case unix.BPF_JGE:
		return m.a >= k
	}
	return m.a&k != 0 // BPF_JSET
}

func (m *machine) step(op uint16, k uint32, data []byte) error {
	switch op & 7 {
	case unix.BPF_LD, unix.BPF_LDX:
		v, err := m.load(op&0xe0, k, data)
		if err != nil {
			return err
		}
		if op&7 == unix.BPF_LD {
			m.a = v
		} else {
			m.x = v
		}
	case unix.BPF_ST, unix.BPF_STX:
		if int(k) >= len(m.mem) {
			return errFilter
		}
		if m.mem[k] = m.a; op&7 == unix.BPF_STX {
			m.mem[k] = m.x
		}
	case unix.BPF_ALU:
		return m.calculate(op, k)
	case unix.BPF_MISC:
		if op&0xf8 == unix.BPF_TXA {
			m.a = m.x
		} else {
			m.x = m.a
		}
	}
	return nil
}

func (m *machine) load(mode uint16, k uint32, data []byte) (uint32, error) {
	switch {
	case mode == unix.BPF_IMM:
		return k, nil
	case mode == unix.BPF_LEN:
		return uint32(len(data)), nil
	case mode == unix.BPF_MEM && int(k) < len(m.mem):
		return m.mem[k], nil
	case mode == unix.BPF_ABS && uint64(k)+4 <= uint64(len(data)):
		return binary.LittleEndian.Uint32(data[k:]), nil
	}
	return 0, errFilter
}

func (m *machine) calculate(op uint16, k uint32) error {
	if op&unix.BPF_X != 0 {
		k = m.x
	}
	switch op & 0xf0 {
	case unix.BPF_ADD:
		m.a += k
	case unix.BPF_SUB:
		m.a -= k
	case unix.BPF_MUL:
		m.a *= k
	case unix.BPF_DIV:
		if k == 0 {
			return errFilter // the kernel returns 0, which kills
		}
		m.a /= k
	case unix.BPF_OR:
		m.a |= k
	case unix.BPF_AND:
		m.a &= k
	case unix.BPF_XOR:
		m.a ^= k
	case unix.BPF_LSH:
		m.a <<= k & 31
	case unix.BPF_RSH:
		m.a >>= k & 31
	case unix.BPF_NEG:
		m.a = -m.a
	default:
		return errFilter
	}
	return nil
}
