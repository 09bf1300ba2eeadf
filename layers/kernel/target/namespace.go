// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// InNamespace runs fn on a thread that is in the namespace at path, which is a
// link of /proc/PID/ns that a single thread may enter: net, ipc, uts. The thread
// comes back, or ends: no other goroutine ever runs in the namespace. fn must
// not start goroutines that need it.
func InNamespace(path string, fn func() error) error {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(ns)
	return InNamespaceFD(ns, filepath.Base(path), fn)
}

// InNamespaceFD is InNamespace for a namespace that is open as ns; kind is its
// name in /proc/PID/ns. It serves when no process is left to name it by.
func InNamespaceFD(ns int, kind string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		back, err := enter(ns, kind)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		err = fn()
		if unix.Setns(back, 0) == nil {
			runtime.UnlockOSThread()
		}
		unix.Close(back)
		done <- err
	}()
	return tracer.WaitFor(done)
}

// enter moves the thread and returns the namespace it was in.
func enter(ns int, kind string) (int, error) {
	back, err := unix.Open("/proc/thread-self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	if err := unix.Setns(ns, 0); err != nil {
		unix.Close(back)
		return -1, fmt.Errorf("enter the namespace of kind %s: %w", kind, err)
	}
	return back, nil
}
