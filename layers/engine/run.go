// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/network"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/enginepipe"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/layers/request/resolve/question"
)

// Main is the engine process: without arguments it serves one job on descriptor
// enginepipe.FD, with enginepipe.Ask it asks a destination, from its standard
// input to its standard output, with enginepipe.Announce it announces addresses. It
// returns the process's exit status.
func Main(args []string) int {
	serve := func() error { return enginepipe.Serve(enginepipe.FD, Run) }
	switch {
	case len(args) == 1 && args[0] == enginepipe.Ask:
		serve = func() error { return question.Main(os.Stdin, os.Stdout) }
	case len(args) == 2 && args[0] == enginepipe.Announce:
		serve = func() error { return announce(args[1]) }
	case len(args) > 0:
		fmt.Fprintf(os.Stderr, "mig engine: unknown arguments %q: this program is run by containerd-shim-mig-v1\n", args)
		return 2
	}
	// It was run by the number of a descriptor, which says nothing to people. Where
	// that fails it keeps that name.
	_ = os.WriteFile("/proc/self/comm", []byte(programName), 0)
	tuneCollector()
	go warmUp() // while the job is on its way
	err := serve()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mig engine:", err)
		return 1
	}
	return 0
}

// programName is shown by ps(1).
const programName = "mig-engine"

// announce is enginepipe.Announce.
func announce(pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return fmt.Errorf("announce the network of process %q: %w", pid, err)
	}
	return network.Announce(n)
}

// warmUp does what every job needs and no job decides.
func warmUp() {
	_, _ = cpuFeatures()
	tracer.HostXSave()
	prepareMessages()
}

// Run does one job.
func Run(ctx context.Context, j *job.Job, files []*os.File, r job.Reporter) error {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if j.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.Timeout)
		defer cancel()
	}
	if err := sameProcess(j); err != nil {
		return err
	}
	if _, err := watchdog(j); err != nil {
		return err
	}
	switch {
	case j.Kind == job.Checkpoint && address.IsMove(j.Image):
		return move(ctx, j, r)
	case j.Kind == job.Checkpoint:
		return checkpoint(ctx, j, r)
	case j.Kind == job.Restore && address.IsIncoming(j.Image):
		return receive(ctx, j, files, r)
	case j.Kind == job.Restore:
		return restore(ctx, j, files, r)
	}
	return fmt.Errorf("job %q: %w", j.Kind, errors.ErrUnsupported)
}

// sameProcess makes sure that the pid still means the container.
func sameProcess(j *job.Job) error {
	if j.InitStart == 0 {
		return nil
	}
	st, err := procfs.Host().Process(j.InitPid).Stat()
	if err != nil {
		return fmt.Errorf("the container's process %d: %w", j.InitPid, err)
	}
	if st.StartTime != j.InitStart {
		return fmt.Errorf("process %d is not the container's any more: %w", j.InitPid, control.ErrGone)
	}
	return nil
}

// workers is how many goroutines copy memory and steps of processes run at the
// same time.
func workers() int { return max(2, min(runtime.NumCPU(), 8)) }

// tuning is what both sides of an event share. A job's watchdog was checked by
// Run.
func tuning(j *job.Job, r *progress) control.Tuning {
	patience, _ := watchdog(j)
	return control.Tuning{Workers: workers(), Watchdog: patience, Observer: r.observe, Report: os.Stderr}
}

// The bounds of what a person may choose for the watchdog.
const (
	minWatchdog = time.Second
	maxWatchdog = time.Hour
)

// watchdog is how long nothing may advance in a job's event, 0 for the default.
func watchdog(j *job.Job) (time.Duration, error) {
	text := j.Options[policy.Watchdog]
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minWatchdog || d > maxWatchdog {
		return 0, fmt.Errorf("policy %s: %q is no time from %s to %s", policy.Watchdog, text, minWatchdog, maxWatchdog)
	}
	return d, nil
}

// openMedium opens an image by its address; plain paths are directories.
func openMedium(ctx context.Context, address string, d medium.Direction) (medium.Medium, error) {
	media, err := Media()
	if err != nil {
		return nil, err
	}
	return media.Open(ctx, address, d)
}
