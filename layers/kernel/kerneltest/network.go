// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// InNetwork runs fn on a thread in a network namespace of its own, in which nothing
// is up, not even the loopback. Programs that fn starts are in it, and goroutines that
// it starts are not. An error of fn ends the test. The namespace ends with fn, unless
// fn has opened it.
func InNetwork(t testing.TB, fn func() error) {
	t.Helper()
	NeedRoot(t)
	err := errors.New("fn has ended its goroutine")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		if e := unix.Unshare(unix.CLONE_NEWNET); e != nil {
			err = e
			return
		}
		err = fn()
	}()
	<-done
	if err != nil {
		t.Fatal("in a network namespace: ", err)
	}
}
