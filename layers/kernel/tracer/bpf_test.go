// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

func assemble(code ...unix.SockFilter) (b []byte) {
	for _, c := range code {
		b = binary.LittleEndian.AppendUint16(b, c.Code)
		b = binary.LittleEndian.AppendUint32(append(b, c.Jt, c.Jf), c.K)
	}
	return b
}

func ins(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// TestRunFilter: each instruction that the kernel takes, with its result.
func TestRunFilter(t *testing.T) {
	data := seccompData(219, &amd64.Registers{Rip: 0x1122334455667788, Rdi: 7, R9: 0xaabbccdd00000009})
	const retA = unix.BPF_RET | unix.BPF_A
	ld := func(k uint32) unix.SockFilter { return ins(unix.BPF_LD|unix.BPF_IMM, k) }
	ldx := func(k uint32) unix.SockFilter { return ins(unix.BPF_LDX|unix.BPF_IMM, k) }
	abs := func(k uint32) unix.SockFilter { return ins(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, k) }
	alu := func(op uint16, k uint32) unix.SockFilter { return ins(unix.BPF_ALU|op, k) }
	for name, c := range map[string]struct {
		code []unix.SockFilter
		want uint32
	}{
		"number":     {[]unix.SockFilter{abs(0), ins(retA, 0)}, 219},
		"arch":       {[]unix.SockFilter{abs(4), ins(retA, 0)}, auditArch},
		"ip":         {[]unix.SockFilter{abs(8), ins(retA, 0)}, 0x55667788},
		"last":       {[]unix.SockFilter{abs(60), ins(retA, 0)}, 0xaabbccdd},
		"length":     {[]unix.SockFilter{ins(unix.BPF_LD|unix.BPF_LEN, 0), ins(retA, 0)}, 64},
		"constant":   {[]unix.SockFilter{ins(unix.BPF_RET, 5)}, 5},
		"memory":     {[]unix.SockFilter{ld(9), ins(unix.BPF_ST, 3), ldx(8), ins(unix.BPF_STX, 4), ins(unix.BPF_LD|unix.BPF_MEM, 3), ins(unix.BPF_LDX|unix.BPF_MEM, 4), alu(unix.BPF_SUB|unix.BPF_X, 0), ins(retA, 0)}, 1},
		"arithmetic": {[]unix.SockFilter{ld(7), alu(unix.BPF_ADD, 3), alu(unix.BPF_MUL, 6), alu(unix.BPF_DIV, 4), alu(unix.BPF_XOR, 1), alu(unix.BPF_LSH, 4), alu(unix.BPF_OR, 3), alu(unix.BPF_RSH, 1), alu(unix.BPF_AND, 0x7f), alu(unix.BPF_NEG, 0), ins(retA, 0)}, 0xffffff8f},
		"transfer":   {[]unix.SockFilter{ld(4), ins(unix.BPF_MISC|unix.BPF_TAX, 0), ld(1), ins(unix.BPF_MISC|unix.BPF_TXA, 0), ins(retA, 0)}, 4},
		"jump":       {[]unix.SockFilter{ins(unix.BPF_JMP|unix.BPF_JA, 1), ins(unix.BPF_RET, 1), ins(unix.BPF_RET, 2)}, 2},
		"equal":      {[]unix.SockFilter{abs(0), {Code: unix.BPF_JMP | unix.BPF_JEQ, Jt: 1, K: 219}, ins(unix.BPF_RET, 1), ins(unix.BPF_RET, 2)}, 2},
		"greater":    {[]unix.SockFilter{abs(0), {Code: unix.BPF_JMP | unix.BPF_JGT, Jt: 1, K: 219}, ins(unix.BPF_RET, 1), ins(unix.BPF_RET, 2)}, 1},
		"at least":   {[]unix.SockFilter{abs(0), ldx(219), {Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_X, Jf: 1}, ins(unix.BPF_RET, 1), ins(unix.BPF_RET, 2)}, 1},
		"bits":       {[]unix.SockFilter{abs(0), {Code: unix.BPF_JMP | unix.BPF_JSET, Jf: 1, K: 4}, ins(unix.BPF_RET, 1), ins(unix.BPF_RET, 2)}, 2},
	} {
		if got, err := runFilter(assemble(c.code...), data); err != nil || got != c.want {
			t.Errorf("%s: %#x %v instead of %#x", name, got, err, c.want)
		}
	}
	for name, code := range map[string][]unix.SockFilter{
		"no end": {ld(1)}, "beyond the data": {abs(61)}, "beyond the memory": {ins(unix.BPF_ST, 16)}, "division by zero": {alu(unix.BPF_DIV, 0), ins(retA, 0)},
		"jump beyond": {ins(unix.BPF_JMP|unix.BPF_JA, 1<<31-1)}, "packet": {ins(unix.BPF_LD|unix.BPF_IND, 0)},
	} {
		if _, err := runFilter(assemble(code...), data); !errors.Is(err, errFilter) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for ret, want := range map[uint32]bool{unix.SECCOMP_RET_ALLOW: true, unix.SECCOMP_RET_LOG: true, unix.SECCOMP_RET_ERRNO | 1: false, unix.SECCOMP_RET_KILL_PROCESS: false, 0: false} {
		if passes(assemble(ins(unix.BPF_RET, ret)), data) != want {
			t.Errorf("action %#x", ret)
		}
	}
}

func FuzzRunFilter(f *testing.F) {
	f.Add(assemble(ins(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 4), ins(unix.BPF_RET|unix.BPF_A, 0)))
	data := seccompData(1, &amd64.Registers{})
	f.Fuzz(func(_ *testing.T, code []byte) { _, _ = runFilter(code, data) })
}
