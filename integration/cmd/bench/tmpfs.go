// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Page sizes of a tmpfs (Documentation/filesystems/tmpfs.rst, huge=).
const (
	hugeNever      = "never"       // 4 KiB, what a tmpfs has unless it is told otherwise
	hugeWithinSize = "within_size" // 2 MiB, where the file is that long
)

// mountTmpfs mounts a tmpfs on a new directory in the scope.
func (b *bench) mountTmpfs(huge string) (string, error) {
	dir := filepath.Join(b.scope.Dir, "tmpfs-"+huge)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount("bench", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=80%,huge="+huge); err != nil {
		return "", errors.Join(fmt.Errorf("mount a tmpfs with huge=%s: %w", huge, err), os.Remove(dir))
	}
	b.mounts = append(b.mounts, dir)
	return dir, nil
}

func (b *bench) unmount() error {
	var errs []error
	for _, dir := range b.mounts {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
		}
	}
	b.mounts = nil
	return errors.Join(errs...)
}

// insideEnv marks the process that has mounts of its own.
const insideEnv = "MIG_BENCH_INSIDE"

// withOwnMounts runs this program again in a mount namespace of its own, so
// that whatever becomes of it leaves no mount behind. It returns false in that
// process, which has to do the work; else the exit status is its.
func withOwnMounts() (outside bool, status int) {
	if os.Getenv(insideEnv) != "" || os.Geteuid() != 0 {
		return false, 0
	}
	self, err := os.Executable() // by its name, which a profiler shows
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return true, 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signal.Ignore(os.Interrupt) // the other one ends, and tells how
	// os/exec makes the new namespace's mounts private. A signal from the
	// terminal reaches both; what ends only this process ends the other.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGTERM}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return true, 1
	}
	return true, cmd.ProcessState.ExitCode()
}
