// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// SmapsMapping is one entry of /proc/PID/smaps. Sizes are in bytes and are
// those of the moment; pages shared between tasks make them move.
type SmapsMapping struct {
	Mapping
	Flags VMFlags
	// UnknownFlags holds VmFlags codes newer than this package. They carry
	// state, so a checkpoint should refuse them.
	UnknownFlags []string

	Size, KernelPageSize, MMUPageSize uint64
	Rss, Pss, PssDirty                uint64
	SharedClean, SharedDirty          uint64
	PrivateClean, PrivateDirty        uint64
	Referenced, Anonymous             uint64
	KSM, LazyFree                     uint64
	AnonHugePages                     uint64
	ShmemPmdMapped, FilePmdMapped     uint64
	SharedHugetlb, PrivateHugetlb     uint64
	Swap, SwapPss, Locked             uint64

	THPEligible   bool
	ProtectionKey int // 0 is every task's default key

	// Extra holds values this package does not know, bytes by name.
	Extra map[string]uint64

	seen bool // VmFlags was there, so the entry is whole
}

// ParseSmaps reads /proc/PID/smaps.
func ParseSmaps(data []byte) ([]SmapsMapping, error) {
	var p smapsParser
	if err := eachLine("smaps", data, p.line); err != nil {
		return nil, err
	}
	return p.finish("smaps")
}

type smapsParser struct {
	out   []SmapsMapping
	names pathCache
	last  uint64
}

func (p *smapsParser) line(line []byte) error {
	first, _, _ := bytes.Cut(line, []byte{' '})
	if key, ok := bytes.CutSuffix(first, []byte{':'}); ok {
		if len(p.out) == 0 {
			return errors.New("value before the first mapping")
		}
		return p.out[len(p.out)-1].set(key, line[len(first):])
	}
	if n := len(p.out); n > 0 && !p.out[n-1].seen {
		return fmt.Errorf("the mapping at %#x above has no VmFlags", p.out[n-1].Start)
	}
	m, err := p.names.mapping(line)
	if err != nil {
		return err
	}
	if err := follows(&m, &p.last); err != nil {
		return err
	}
	p.out = append(p.out, SmapsMapping{Mapping: m})
	return nil
}

// finish checks that the last entry is whole: VmFlags always comes last.
func (p *smapsParser) finish(file string) ([]SmapsMapping, error) {
	if n := len(p.out); n > 0 && !p.out[n-1].seen {
		return nil, parseError(file, 0, []byte(p.out[n-1].String()), errors.New("no VmFlags"))
	}
	return p.out, nil
}

// set stores one "key: value" line.
func (m *SmapsMapping) set(key, value []byte) error {
	c := cursor{rest: value}
	switch string(key) {
	case "VmFlags":
		if m.seen {
			return errors.New("second VmFlags for one mapping")
		}
		m.seen = true
		m.Flags, m.UnknownFlags = parseVMFlags(value)
		return nil
	case "THPeligible":
		m.THPEligible = c.dec("value") != 0
		return c.end()
	case "ProtectionKey":
		m.ProtectionKey = c.int("value")
		return c.end()
	}
	n := c.dec("value")
	if c.skip(); len(c.rest) > 0 {
		c.literal("kB")
		if n > ^uint64(0)/1024 {
			c.fail("value", errRange)
		}
		n *= 1024
	}
	if err := c.end(); err != nil {
		return err
	}
	if p := m.size(key); p != nil {
		*p = n
		return nil
	}
	if m.Extra == nil {
		m.Extra = make(map[string]uint64)
	}
	m.Extra[string(key)] = n
	return nil
}

// size is the field that holds the value called key, or nil.
func (m *SmapsMapping) size(key []byte) *uint64 {
	switch string(key) {
	case "Size":
		return &m.Size
	case "KernelPageSize":
		return &m.KernelPageSize
	case "MMUPageSize":
		return &m.MMUPageSize
	case "Rss":
		return &m.Rss
	case "Pss":
		return &m.Pss
	case "Pss_Dirty":
		return &m.PssDirty
	case "Shared_Clean":
		return &m.SharedClean
	case "Shared_Dirty":
		return &m.SharedDirty
	case "Private_Clean":
		return &m.PrivateClean
	case "Private_Dirty":
		return &m.PrivateDirty
	case "Referenced":
		return &m.Referenced
	case "Anonymous":
		return &m.Anonymous
	case "KSM":
		return &m.KSM
	case "LazyFree":
		return &m.LazyFree
	case "AnonHugePages":
		return &m.AnonHugePages
	case "ShmemPmdMapped":
		return &m.ShmemPmdMapped
	case "FilePmdMapped":
		return &m.FilePmdMapped
	case "Shared_Hugetlb":
		return &m.SharedHugetlb
	case "Private_Hugetlb":
		return &m.PrivateHugetlb
	case "Swap":
		return &m.Swap
	case "SwapPss":
		return &m.SwapPss
	case "Locked":
		return &m.Locked
	}
	return nil
}
