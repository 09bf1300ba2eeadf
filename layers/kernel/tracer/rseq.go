// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// Rseq is a thread's restartable-sequences registration
// (PTRACE_GET_RSEQ_CONFIGURATION).
type Rseq struct {
	Addr      uint64 // struct rseq in the thread's memory; 0: not registered
	Size      uint32
	Signature uint32
	Flags     uint32
}

// Layout of struct rseq and struct rseq_cs, include/uapi/linux/rseq.h.
const (
	rseqCSField = 8  // offset of rseq_cs in struct rseq
	rseqCSSize  = 32 // version, flags, start_ip, post_commit_offset, abort_ip
)

// rseqAbort applies what the kernel does when a thread is preempted inside a
// critical section: it continues at the abort handler. Running injected code
// in between would make the kernel forget the section, so we must do it.
func rseqAbort(r amd64.Registers, cs []byte) amd64.Registers {
	if len(cs) < rseqCSSize {
		return r
	}
	start := binary.LittleEndian.Uint64(cs[8:])
	length := binary.LittleEndian.Uint64(cs[16:])
	if r.Rip-start < length {
		r.Rip = binary.LittleEndian.Uint64(cs[24:])
		r.OrigRax = amd64.NoSyscall
	}
	return r
}
