// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"sync"
	"sync/atomic"
)

// Each calls fn for 0 to n-1 by several workers and returns their first error,
// each worker's. It is for looks into /proc, which any thread may take: a
// process may have ten thousand of them to be looked at.
func (e Env) Each(n int, fn func(i int) error) error {
	const worth = 16 // below, the workers cost more than they bring
	workers := min(max(e.Workers, 1), n/worth+1)
	if workers == 1 {
		return each(n, new(atomic.Int64), fn)
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			if errs[w] = each(n, &next, fn); errs[w] != nil {
				next.Store(int64(n)) // the others need not go on
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func each(n int, next *atomic.Int64, fn func(i int) error) error {
	for {
		i := int(next.Add(1)) - 1
		if i >= n {
			return nil
		}
		if err := fn(i); err != nil {
			return err
		}
	}
}
