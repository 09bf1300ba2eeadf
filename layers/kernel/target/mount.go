// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// OpenMount opens the directory at path, as process pid sees it, alone: what is
// mounted in it is not there, so what it hides can be seen. path must lead
// through no magic link. The caller closes it.
//
// The mount is cloned, which only a thread of its mount namespace may do
// (open_tree(2), Linux 5.2).
func OpenMount(pid int, path string) (*os.File, error) {
	at := fmt.Sprintf("/proc/%d/root", pid)
	root, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: at, Err: err}
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(root, path, &how)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var tree int
	err = InMountNamespace(pid, func() (err error) {
		tree, err = unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("clone the mount at %s: %w", path, err)
	}
	defer unix.Close(tree)
	// What open_tree returns is an O_PATH descriptor.
	n, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(n), path), nil
}

// InMountNamespace runs fn on a thread that is in the mount namespace of process
// pid. The thread ends with it: its root and working directory are no longer the
// engine's. fn must not start goroutines that need the namespace.
func InMountNamespace(pid int, fn func() error) error {
	path := fmt.Sprintf("/proc/%d/ns/mnt", pid)
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(ns)
	done := make(chan error, 1)
	go onSpareThread(func() {
		// setns(2) refuses a thread that shares its root directory with others.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- os.NewSyscallError("unshare(CLONE_FS)", err)
			return
		}
		if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("enter the mount namespace of pid %d: %w", pid, err)
			return
		}
		done <- errors.Join(fn())
	})
	return tracer.WaitFor(done)
}

// onSpareThread runs fn on a thread that ends with it, and that is not the
// process's first one: /proc/self shows that one's directories.
func onSpareThread(fn func()) {
	runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		fn()
		return
	}
	done := make(chan struct{})
	go func() { // on another thread, while this one is locked
		defer close(done)
		onSpareThread(fn)
	}()
	<-done
	runtime.UnlockOSThread()
}
