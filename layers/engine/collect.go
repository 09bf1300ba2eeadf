// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	// gcPercent lets a small event end before the first collection: a batch of
	// remote calls must not be held up by our own collector, and the engine lives
	// for one event only.
	gcPercent = 400
	// memoryLimit makes a large one collect more often, in bytes.
	memoryLimit = 40 << 20
	// overhead is what the engine needs beside heap and stacks, about, in bytes.
	overhead = 16 << 20
)

// tuneCollector keeps the engine small, but not at any price: a process of ten
// thousand threads is described by more than memoryLimit, and against a limit
// that what lives does not fit under, the collector takes half of all time.
// There must be room for as much again.
func tuneCollector() {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	eachCollection(func() {
		metrics.Read(m)
		debug.SetMemoryLimit(limitFor(value(m[0]), value(m[1])))
	})
}

func value(s metrics.Sample) int64 {
	if s.Value.Kind() != metrics.KindUint64 {
		return 0 // not measured by this version of Go
	}
	return int64(s.Value.Uint64())
}

// limitFor is the limit where so many bytes of the heap live beside stacks: each
// traced process has a thread of the tracer.
func limitFor(live, stacks int64) int64 {
	return max(memoryLimit, minMemory.Load(), 2*live+stacks+overhead)
}

// minMemory is the least limit, for an engine that wants more than memoryLimit.
var minMemory atomic.Int64

// eachCollection calls f after every collection, on the goroutine of finalizers.
func eachCollection(f func()) {
	type garbage struct{ _ [16]byte } // large enough for a block of its own
	var again func(*garbage)
	again = func(g *garbage) {
		f()
		runtime.SetFinalizer(g, again)
	}
	runtime.SetFinalizer(&garbage{}, again)
}
