// SPDX-License-Identifier: Apache-2.0

package castagnoli

import (
	"hash/crc32"

	"golang.org/x/sys/cpu"
)

// stride is how many bytes one turn of fold takes.
const stride = 256

var wide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512VPCLMULQDQ

// fold replaces n bytes at p, of which n is a multiple of stride and not 0, by 64
// bytes that leave the same remainder: a CRC is the remainder of a message as a
// polynomial, so the start of a message may be multiplied by x^d modulo the
// CRC's polynomial and added d bits further on. state is the remainder before
// the message, which is added to its first 32 bits.
//
//go:noescape
func fold(rest *[64]byte, p *byte, n int, state uint32)

// folded is crc32.Update for a multiple of stride.
func folded(crc uint32, p []byte) uint32 {
	var rest [64]byte
	fold(&rest, &p[0], len(p), ^crc)
	// The state before the rest is 0, which Update inverts.
	return crc32.Update(^uint32(0), table, rest[:])
}
