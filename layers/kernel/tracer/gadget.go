// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
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

// Gadgets remembers where processes have code for the first remote call: a search
// goes through whole libraries, and a process that was forked has it where its
// parent has. Its zero value knows nothing. Safe for concurrent use.
type Gadgets struct {
	mu    sync.Mutex
	known []gadgets
}

// maxGadgets bounds the programs whose code is remembered.
const maxGadgets = 16

func (k *Gadgets) list() []gadgets {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.known)
}

func (k *Gadgets) add(g gadgets) {
	if k == nil || !g.complete() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.known, g) && len(k.known) < maxGadgets {
		k.known = append(k.known, g)
	}
}

// Learn searches a process that runs, ahead of its stop. What it cannot read then
// it leaves to the stop.
func (k *Gadgets) Learn(pid int) {
	maps, err := readMaps(pid)
	if err != nil {
		return
	}
	k.add(findGadgets(maps, func(addr uint64, b []byte) error { return readRunning(pid, addr, b) }))
}

// readRunning reads memory of a process that is not traced.
func readRunning(pid int, addr uint64, b []byte) error {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	if err == nil && n < len(b) {
		err = unix.EFAULT
	}
	return err
}

// findGadgets is what was found before, if it is still there, or a search.
func (p *Process) findGadgets(maps []mapping) gadgets {
	known := p.opts.Gadgets.list()
	for i := range known {
		if known[i].there(maps, p.Read) {
			return known[i]
		}
	}
	g := findGadgets(maps, p.Read)
	p.opts.Gadgets.add(g)
	return g
}

// there: the same code is at the same addresses, in mappings that nobody can
// write.
func (g *gadgets) there(maps []mapping, read func(addr uint64, b []byte) error) bool {
	holds := func(at uint64, code []byte) bool {
		in := func(m mapping) bool { return at >= m.Start && at+uint64(len(code)) <= m.End }
		b := make([]byte, len(code))
		return slices.ContainsFunc(gadgetSources(maps), in) && read(at, b) == nil && bytes.Equal(b, code)
	}
	return holds(g.syscallRet, gadgetSyscallRet) &&
		slices.ContainsFunc(gadgetRestorers, func(code []byte) bool { return holds(g.restorer, code) })
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
