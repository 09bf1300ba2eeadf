// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"strings"
)

// VMFlags is the set of a smaps entry's VmFlags. The bits are this package's
// own and may change: do not store them.
type VMFlags uint64

// One bit for each code of fs/proc/task_mmu.c, show_smap_vma_flags (meanings:
// Documentation/filesystems/proc.rst).
const (
	VMRead        VMFlags = 1 << iota // rd readable
	VMWrite                           // wr writable
	VMExec                            // ex executable
	VMShared                          // sh shared
	VMMayRead                         // mr may become readable
	VMMayWrite                        // mw may become writable
	VMMayExec                         // me may become executable
	VMMayShare                        // ms may become shared
	VMGrowsDown                       // gd stack segment growing down
	VMPFNMap                          // pf pure page-frame range, no struct page
	VMDenyWrite                       // dw writes to the mapped file are refused (before 5.15)
	VMLocked                          // lo mlock
	VMIO                              // io memory-mapped I/O area
	VMSeqRead                         // sr MADV_SEQUENTIAL
	VMRandRead                        // rr MADV_RANDOM
	VMDontFork                        // dc MADV_DONTFORK
	VMDontExpand                      // de cannot be expanded by mremap
	VMLockOnFault                     // lf MLOCK_ONFAULT
	VMAccount                         // ac counted against overcommit
	VMNoReserve                       // nr MAP_NORESERVE
	VMHugeTLB                         // ht huge TLB pages
	VMSync                            // sf MAP_SYNC
	VMNonLinear                       // nl nonlinear mapping (before 4.0)
	VMArch1                           // ar architecture specific
	VMWipeOnFork                      // wf MADV_WIPEONFORK
	VMDontDump                        // dd MADV_DONTDUMP
	VMSoftDirty                       // sd soft-dirty
	VMMixed                           // mm mixed map: page frames and pages
	VMHugePage                        // hg MADV_HUGEPAGE
	VMNoHugePage                      // nh MADV_NOHUGEPAGE
	VMMergeable                       // mg MADV_MERGEABLE
	VMUffdMissing                     // um registered with a userfaultfd: missing
	VMUffdWP                          // uw ... write-protect
	VMUffdMinor                       // ui ... minor
	VMMTE                             // mt arm64 memory tagging
	VMBTI                             // bt arm64 branch target identification
	VMMPX                             // mp x86 bounds (before 5.6)
	VMShadowStack                     // ss shadow (guarded control) stack
	VMDroppable                       // dp MAP_DROPPABLE
	VMSealed                          // sl mseal
	VMGuard                           // gu may hold guard pages (MADV_GUARD_INSTALL)
)

// vmCodes are the two letters of each bit, lowest first.
const vmCodes = "rdwrexshmrmwmemsgdpfdwloiosrrrdcdelfacnrhtsfnlarwfddsdmmhgnhmgumuwuimtbtmpssdpslgu"

// vmBits maps two letters to their bit.
var vmBits = func() map[[2]byte]VMFlags {
	m := make(map[[2]byte]VMFlags, len(vmCodes)/2)
	for i := 0; i < len(vmCodes); i += 2 {
		m[[2]byte{vmCodes[i], vmCodes[i+1]}] = 1 << (i / 2)
	}
	return m
}()

// Has reports whether all bits of f are set.
func (v VMFlags) Has(f VMFlags) bool { return v&f == f }

// String lists the codes, blank-separated, in this package's order.
func (v VMFlags) String() string {
	var codes []string
	for i := 0; i < len(vmCodes); i += 2 {
		if v&(1<<(i/2)) != 0 {
			codes = append(codes, vmCodes[i:i+2])
		}
	}
	return strings.Join(codes, " ")
}

// parseVMFlags returns the known flags and the codes of unknown ones.
func parseVMFlags(text []byte) (v VMFlags, unknown []string) {
	for len(text) > 0 {
		text = bytes.TrimLeft(text, " ")
		code, rest, _ := bytes.Cut(text, []byte{' '})
		text = rest
		if len(code) == 2 {
			if bit, ok := vmBits[[2]byte{code[0], code[1]}]; ok {
				v |= bit
				continue
			}
		}
		if len(code) > 0 {
			unknown = append(unknown, string(code))
		}
	}
	return v, unknown
}
