// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"strings"
)

// CPU is one processor of /proc/cpuinfo on x86.
type CPU struct {
	Processor                 int
	Vendor, Model             string // "GenuineIntel"; the marketing name
	Family, ModelID, Stepping int    // CPUID signature
	Microcode                 string
	// Flags are the features the kernel lets programs use, in its order.
	// Processors with equal flags share one slice: do not modify it.
	Flags []string
}

// CPUInfo reads cpuinfo.
func (f FS) CPUInfo() ([]CPU, error) {
	var p cpuParser
	if err := f.stream("cpuinfo", p.line); err != nil {
		return nil, err
	}
	return p.out, nil
}

// ParseCPUInfo reads /proc/cpuinfo. Lines other than those of CPU describe the
// machine, not a program's state, and are passed over.
func ParseCPUInfo(data []byte) ([]CPU, error) {
	var p cpuParser
	if err := eachLine("cpuinfo", data, p.line); err != nil {
		return nil, err
	}
	return p.out, nil
}

type cpuParser struct {
	out   []CPU
	raw   string // text of the last flags line
	flags []string
}

func (p *cpuParser) line(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	key, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return errors.New("no colon")
	}
	key, value = bytes.TrimSpace(key), bytes.TrimSpace(value)
	c := cursor{rest: value}
	if string(key) == "processor" {
		p.out = append(p.out, CPU{Processor: c.int("number")})
		return c.end()
	}
	if len(p.out) == 0 {
		return errors.New("value before the first processor")
	}
	cpu := &p.out[len(p.out)-1]
	switch string(key) {
	case "vendor_id":
		cpu.Vendor = string(value)
	case "model name":
		cpu.Model = string(value)
	case "cpu family":
		cpu.Family = c.int("family")
	case "model":
		cpu.ModelID = c.int("model")
	case "stepping":
		if string(value) != "unknown" {
			cpu.Stepping = c.int("stepping")
		}
	case "microcode":
		cpu.Microcode = string(value)
	case "flags":
		if p.raw != string(value) || p.flags == nil {
			p.raw = string(value)
			p.flags = strings.Fields(p.raw)
		}
		cpu.Flags = p.flags
	}
	return c.err
}

// Sysctl reads an unsigned decimal below sys, such as "kernel/cap_last_cap"
// or "vm/max_map_count".
func (f FS) Sysctl(name string) (uint64, error) {
	var v uint64
	err := f.read("sys/"+name, func(data []byte) (err error) {
		v, err = ParseDecimal(data)
		return err
	})
	return v, err
}

// CapLastCap is the number of the last capability that this kernel knows.
func (f FS) CapLastCap() (int, error) {
	v, err := f.Sysctl("kernel/cap_last_cap")
	return int(v), err
}

// Locks reads locks: those of all tasks of the proc mount's pid namespace.
func (f FS) Locks() ([]Lock, error) {
	var out []Lock
	err := f.stream("locks", func(line []byte) error {
		l, err := parseLock(line)
		out = append(out, l)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
