// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"slices"
)

// Code for the first remote call. A thread that makes one system call and
// must then find its way back by itself needs "syscall; ret" and, to return
// onto, "mov $15,%eax; syscall" (rt_sigreturn). Every libc has both: the
// first in getpid and the like, the second as the restorer of its signal
// handlers; so have Go programs. Using them changes no byte of code.
var (
	gadgetSyscallRet = []byte{0x0f, 0x05, 0xc3}
	gadgetRestorers  = [][]byte{
		{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}, // mov $15,%rax
		{0xb8, 15, 0, 0, 0, 0x0f, 0x05},             // mov $15,%eax
	}
	gadgetMaxLen = 9
)

// gadgets are addresses of code in the tracee.
type gadgets struct{ syscallRet, restorer uint64 }

func (g *gadgets) complete() bool { return g.syscallRet != 0 && g.restorer != 0 }

// scan looks for what is still missing in code mapped at addr.
func (g *gadgets) scan(addr uint64, code []byte) {
	if g.syscallRet == 0 {
		if i := bytes.Index(code, gadgetSyscallRet); i >= 0 {
			g.syscallRet = addr + uint64(i)
		}
	}
	for _, r := range gadgetRestorers {
		if g.restorer != 0 {
			return
		}
		if i := bytes.Index(code, r); i >= 0 {
			g.restorer = addr + uint64(i)
		}
	}
}

// gadgetSources returns the mappings to search, smallest first: the vDSO and
// private file mappings of code that nobody can write. Memory a JIT made may
// change while the process runs.
func gadgetSources(maps []mapping) []mapping {
	var out []mapping
	for _, m := range maps {
		if m.Exec && m.Read && !m.Write && !m.Shared && (m.Inode != 0 || m.Name == "[vdso]") {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b mapping) int {
		switch {
		case a.len() < b.len():
			return -1
		case a.len() > b.len():
			return 1
		}
		return 0
	})
	return out
}

// findGadgets searches the tracee's code through read. Found addresses are
// the same every time the same process is searched.
func findGadgets(maps []mapping, read func(addr uint64, b []byte) error) gadgets {
	var g gadgets
	const chunk = 256 << 10
	buf := make([]byte, chunk)
	for _, m := range gadgetSources(maps) {
		for at := m.Start; at < m.End && !g.complete(); at += chunk - uint64(gadgetMaxLen) {
			b := buf[:min(chunk, m.End-at)]
			// A page behind the end of a file cannot be read: leave the
			// rest of that mapping.
			if read(at, b) != nil {
				break
			}
			g.scan(at, b)
			if at+chunk >= m.End {
				break
			}
		}
		if g.complete() {
			break
		}
	}
	return g
}
