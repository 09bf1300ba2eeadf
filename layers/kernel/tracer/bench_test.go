// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"
	"strconv"
	"testing"
)

func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("calls=%d", n), func(b *testing.B) {
			g := launch(b, "many", "1")
			p := attach(b, newTracer(b), g.pid)
			calls := make([]Call, n)
			for i := range calls {
				calls[i] = getpid
			}
			must(b, p.Run(p.Leader(), calls))
			b.ResetTimer()
			err := p.Do(func() error {
				for b.Loop() {
					if err := p.Run(p.Threads()[0], calls); err != nil {
						return err
					}
				}
				return nil
			})
			b.StopTimer()
			must(b, err)
			must(b, p.Detach())
		})
	}
}

func BenchmarkAttachDetach(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("threads=%d", n), func(b *testing.B) {
			g := launch(b, "many", strconv.Itoa(n))
			tr := newTracer(b)
			for b.Loop() {
				must(b, attach(b, tr, g.pid).Detach())
			}
		})
		b.Run(fmt.Sprintf("threads=%d,batches", n), func(b *testing.B) {
			g := launch(b, "many", strconv.Itoa(n))
			tr := newTracer(b)
			for b.Loop() {
				p := attach(b, tr, g.pid)
				must(b, dump(p))
				must(b, p.Detach())
			}
		})
	}
}
