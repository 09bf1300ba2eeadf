// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"
	"fmt"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// A signal frame as rt_sigreturn(2) reads it: struct rt_sigframe of
// arch/x86/include/asm/sigframe.h. The kernel finds it at rsp - 8.
//
//	0    pretcode: return address of the "handler"
//	8    uc_flags, uc_link, uc_stack (left zero: no change)
//	48   struct sigcontext_64, 256 bytes; +184 points to the XSAVE area
//	304  uc_sigmask
//	312  siginfo, unused by sigreturn: our magic
//	448  XSAVE area, 64-aligned, then FP_XSTATE_MAGIC2
const (
	frameContext = 48
	frameFPState = frameContext + 184
	frameMask    = 304
	frameMagicAt = 312
	frameXState  = 448
	frameAlign   = 64

	ucFlags = 1 | 2 | 4 // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS

	fpMagic1 = 0x46505853 // arch/x86/include/uapi/asm/sigcontext.h
	fpMagic2 = 0x46505845
)

// frameMagic marks a frame as ours.
const frameMagic = "mig-frame-of-mig"

// sigframeSize is the size of a frame with an XSAVE area of x bytes.
func sigframeSize(x int) int { return frameXState + x + 4 }

// sigframeXSize returns how much of XSAVE area x goes into a frame. The
// kernel rejects (down to SSE) a frame larger than the thread's own area,
// which holds dynamic components only if the thread has used them.
func sigframeXSize(x []byte, l *amd64.XLayout) (int, error) {
	bv, err := amd64.CheckXSave(x)
	if err != nil {
		return 0, err
	}
	size := l.Size(l.Features&^amd64.FeatureDynamic | bv)
	if size > len(x) {
		return 0, fmt.Errorf("xsave area: %d bytes, the host's layout needs %d", len(x), size)
	}
	return size, nil
}

// sigframe encodes a frame for address at (64-aligned): rt_sigreturn from it
// restores r, mask and XSAVE area x (already cut by sigframeXSize).
// restorer is where a function that returns onto the frame goes: code that
// calls rt_sigreturn.
func sigframe(at, restorer uint64, r *amd64.Registers, mask uint64, x []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, sigframeSize(len(x)))
	le.PutUint64(b, restorer)
	le.PutUint64(b[8:], ucFlags)
	for i, v := range [...]uint64{
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.Rdi, r.Rsi, r.Rbp, r.Rbx,
		r.Rdx, r.Rax, r.Rcx, r.Rsp, r.Rip, r.Eflags,
	} {
		le.PutUint64(b[frameContext+8*i:], v)
	}
	le.PutUint16(b[frameContext+144:], uint16(r.Cs))
	le.PutUint16(b[frameContext+150:], uint16(r.Ss))
	le.PutUint64(b[frameFPState:], at+frameXState)
	le.PutUint64(b[frameMask:], mask)
	copy(b[frameMagicAt:], frameMagic)

	f := b[frameXState:]
	copy(f, x)
	features := le.Uint64(x[amd64.XSaveFeatures:])
	le.PutUint32(f[amd64.XSaveFeatures:], fpMagic1)
	le.PutUint32(f[amd64.XSaveFeatures+4:], uint32(len(x)+4)) // extended_size
	le.PutUint64(f[amd64.XSaveFeatures+8:], features)
	le.PutUint32(f[amd64.XSaveFeatures+16:], uint32(len(x))) // xstate_size
	clear(f[amd64.XSaveFeatures+20 : amd64.XSaveLegacySize])
	le.PutUint32(f[len(x):], fpMagic2)
	return b
}

// isSigframe says whether b, read at a possible frame's address, is one of
// ours.
func isSigframe(b []byte) bool {
	return len(b) >= frameMagicAt+len(frameMagic) && string(b[frameMagicAt:frameMagicAt+len(frameMagic)]) == frameMagic
}
