// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/pprof"

	"golang.org/x/sys/unix"
)

// measure has what the engine costs written down when the function that it returns is
// called, where there is a directory PROGRAM.costs: a line in its file "costs", and a
// profile of its processor time in "PID.cpu", for `go tool pprof PROGRAM PID.cpu`,
// where the directory has a file "profile".
func measure(self string) (done func() error, err error) {
	dir := self + ".costs"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	var profile *os.File
	if _, err := os.Stat(filepath.Join(dir, "profile")); err == nil {
		if profile, err = os.Create(filepath.Join(dir, fmt.Sprintf("%d.cpu", os.Getpid()))); err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(profile); err != nil {
			return nil, errors.Join(err, profile.Close())
		}
	}
	return func() error {
		var errs []error
		if profile != nil {
			pprof.StopCPUProfile()
			errs = append(errs, profile.Close())
		}
		return errors.Join(append(errs, writeCosts(filepath.Join(dir, "costs")))...)
	}, nil
}

// writeCosts appends what this process has needed: its id, microseconds of processor
// time in its own code and in the kernel's, switches of context that it wanted and
// that it did not, KiB of its memory at most.
func writeCosts(path string) error {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d user %d kernel %d switches %d forced %d memory %d\n",
		os.Getpid(), u.Utime.Nano()/1000, u.Stime.Nano()/1000, u.Nvcsw, u.Nivcsw, u.Maxrss)
	return errors.Join(err, f.Close())
}
