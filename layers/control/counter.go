// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"sync"
)

// counter adds up from several workers and stays at its end instead of
// overflowing: the numbers come from others.
type counter struct {
	mu sync.Mutex
	n  uint64
}

func (c *counter) add(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > math.MaxUint64-c.n {
		c.n = math.MaxUint64
		return
	}
	c.n += n
}

func (c *counter) sum() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
