// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"sync"

	"golang.org/x/sys/unix"
)

// threads are the tracers by the ids of their threads.
var threads sync.Map

// WaitFor is a receive for code that may run on a tracer's thread (Do) and waits
// for a goroutine that may itself need that tracer, for example one that works
// in another namespace: the thread does what is asked of it meanwhile.
func WaitFor[T any](done <-chan T) T {
	found, ok := threads.Load(unix.Gettid())
	if !ok {
		return <-done
	}
	t := found.(*Tracer)
	for {
		select {
		case v := <-done:
			return v
		case k := <-t.tasks:
			k.done <- k.fn()
		}
	}
}
