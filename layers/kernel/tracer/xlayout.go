// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"sync"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// cpuid and xgetbv are in cpuid_amd64.s.
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)
func xgetbv() (eax, edx uint32)

// HostXSave returns this host's XSAVE layout: the user components the kernel
// enabled and where they lie (CPUID leaf 0xD, Intel SDM volume 1, 13.2).
func HostXSave() amd64.XLayout { return hostXSave() }

var hostXSave = sync.OnceValue(func() amd64.XLayout {
	lo, hi := xgetbv()
	l := amd64.XLayout{Features: uint64(hi)<<32 | uint64(lo)}
	for bit := 2; bit < 63; bit++ {
		if l.Features&(1<<bit) == 0 {
			continue
		}
		size, offset, _, _ := cpuid(0xd, uint32(bit))
		l.Components = append(l.Components, amd64.XComponent{Bit: bit, Offset: offset, Size: size})
	}
	return l
})
