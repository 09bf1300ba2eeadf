// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"math/bits"
	"sync"
)

// Buffers lends payload buffers in sizes of powers of two, so that a stream of
// pages costs no allocation. The zero value is ready; safe for concurrent use.
type Buffers struct {
	pools [33]sync.Pool
}

const minBuffer = 12 // 4 KiB

// Get returns a buffer of n bytes with any content, and the function that
// takes it back, to be called at most once.
func (p *Buffers) Get(n int) (buf []byte, release func()) {
	class := max(minBuffer, bits.Len(uint(max(n, 1)-1)))
	b, _ := p.pools[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, 1<<class)}
		b.release = func() { p.pools[class].Put(b) }
	}
	return b.bytes[:n], b.release
}

type buffer struct {
	bytes   []byte
	release func()
}
