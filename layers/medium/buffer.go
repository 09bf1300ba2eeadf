// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"math/bits"
	"sync"

	"github.com/io-mig/mig/spec/payload"
)

// Buffers lends payload buffers in sizes of powers of two, so that a stream of
// pages costs no allocation. The zero value is ready; safe for concurrent use.
type Buffers struct {
	// Bounded: never more than a few are lent at a time. Large ones lie in huge
	// pages then, and are kept for the next borrower.
	Bounded bool

	pools [33]sync.Pool
	mu    sync.Mutex
	huge  [33]*payload.Pool
}

const minBuffer = 12 // 4 KiB

// Get returns a buffer of n bytes with any content, and the function that
// takes it back, to be called at most once.
func (p *Buffers) Get(n int) (buf []byte, release func()) {
	class := max(minBuffer, bits.Len(uint(max(n, 1)-1)))
	if p.Bounded && 1<<class >= payload.Huge {
		pool := p.pool(class)
		b := pool.Get()
		return b[:n], func() { pool.Put(b) }
	}
	b, _ := p.pools[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, 1<<class)}
		b.release = func() { p.pools[class].Put(b) }
	}
	return b.bytes[:n], b.release
}

func (p *Buffers) pool(class int) *payload.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.huge[class] == nil {
		p.huge[class] = payload.NewPool(0, 1<<class)
	}
	return p.huge[class]
}

type buffer struct {
	bytes   []byte
	release func()
}
