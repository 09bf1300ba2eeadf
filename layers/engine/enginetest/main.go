// SPDX-License-Identifier: Apache-2.0

// Command enginetest is mig-engine for tests: when its own event comes to a step
// that a test has named (switchover.Point), it kills a process, or stops itself as
// one whose host is lost, and otherwise it goes on as an engine would. What it is to
// do is in files beside its program, as an engine has no environment of its own:
//
//	PROGRAM.orders      "record", or a line "STEP<tab>FILE" for each process to
//	                    kill at a step; FILE has its pid, or is "engine"
//	PROGRAM.steps       the steps that were recorded, one a line
//	PROGRAM.met         the lines of the orders that were met, which are not met again
//	PROGRAM.supervisor  pid of the shim that runs the engine
//
//	PROGRAM.stop.ID      the step at which the engine that moves the container ID
//	                     stops itself; SIGCONT lets it go on
//	PROGRAM.stop.ID.PID  that file, when the engine PID stops
//
//	PROGRAM.costs/       a directory for what each engine has cost (measure)
//
// It is never installed.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/engine/switchover"
)

// patience is how long the pid of a victim may be unknown.
const patience = 10 * time.Second

func main() {
	self, err := os.Executable()
	done := func() error { return nil }
	if err == nil && len(os.Args) == 1 { // not one that only asks
		err = publish(self+".supervisor", strconv.Itoa(os.Getppid()))
		switchover.Point = func(step string) { point(self, step) }
		if err == nil {
			done, err = measure(self)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mig engine for tests:", err)
		os.Exit(1)
	}
	status := engine.Main(os.Args[1:])
	if err := done(); err != nil {
		fmt.Fprintln(os.Stderr, "mig engine for tests:", err)
	}
	os.Exit(status)
}

// publish makes a file that is seen whole or not at all.
func publish(path, content string) error {
	part := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(part, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func point(self, step string) {
	orders, err := os.ReadFile(self + ".orders")
	switch {
	case err == nil:
		err = obey(self, step, string(orders))
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err = errors.Join(err, halt(self, step)); err != nil { // the test misses the mark, and shows the log
		fmt.Fprintf(os.Stderr, "mig engine for tests: %s: %v\n", step, err)
	}
}

func obey(self, step, orders string) error {
	if orders == "record" {
		f, err := os.OpenFile(self+".steps", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(f, step)
		return errors.Join(err, f.Close())
	}
	for line := range strings.Lines(orders) {
		line = strings.TrimSuffix(line, "\n")
		at, victim, _ := strings.Cut(line, "\t")
		if at != step {
			continue
		}
		if err := meet(self+".met", line, victim); err != nil {
			return err
		}
	}
	return nil
}

// meet kills a victim, once for each line of the orders, and is over when it is dead.
func meet(met, line, victim string) error {
	before, err := os.ReadFile(met)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case slices.Contains(strings.Split(string(before), "\n"), line):
		return nil
	}
	all := string(before) + line + "\n"
	if victim == "engine" {
		if err := publish(met, all); err != nil {
			return err
		}
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	pid, err := await(victim)
	if err != nil {
		return err
	}
	if err := kill(pid); err != nil {
		return fmt.Errorf("kill %d of %s: %w", pid, victim, err)
	}
	return publish(met, all)
}

// await returns the pid in a file, which may be on its way.
func await(file string) (int, error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(file)
		if err == nil {
			return strconv.Atoi(string(b))
		}
		if time.Now().After(end) {
			return 0, err
		}
	}
}

// kill ends a process and waits for its death, see pidfd_open(2): a signal that is
// only on its way would let the victim see what comes after the step.
func kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return errors.New("it does not die")
		default:
			return nil
		}
	}
}
