// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package kerneltest drives kernel subsystems through whole round trips of
// real processes, without a container runtime: it starts a program as pid 1 of
// namespaces of its own, exports it, imports it into a frame, and asks the
// program to verify itself.
//
// The protocol of a program: it writes the line "ready" to its standard output
// when the state under test is built. For each byte 'v' on its standard input
// it looks at itself and writes one line, "OK" with whatever it likes behind
// it, or what is wrong. At the end of its standard input it exits. Programs in
// C include kerneltest.h, which does the talking.
//
// Importing the package makes a test binary able to become the init of a
// container (see become.go). Everything here needs root and skips without.
package kerneltest

import (
	"os"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/target"
)

// patience bounds each step of a test: a machine that tests several packages
// at once is slow, and a hang must still end.
const patience = 20 * time.Second

// Constructor makes one subsystem for one event.
type Constructor func(target.Env) kernel.Subsystem

// Of turns a subsystem's own constructor into one of these.
func Of[S kernel.Subsystem](fn func(target.Env) S) Constructor {
	return func(env target.Env) kernel.Subsystem { return fn(env) }
}

// NeedRoot skips a test that cannot work without root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, a cgroup, ptrace of processes with other credentials")
	}
}

// order in which subsystems export and import, whatever the caller's.
var order = map[string]int{
	"task": 1, "rootfs": 2, "ipc": 3, "memory": 4, "file": 5, "tty": 6, "pipe": 7, "socket": 8, "event": 9,
	"signal": 10, "timer": 11, "credential": 12, "cpu": 13, // any other one comes first
}
