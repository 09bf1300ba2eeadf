// SPDX-License-Identifier: Apache-2.0

// Package runtime is the life cycle of OCI containers on libcontainer, driven
// in-process: where `runc` is one process per operation, here one long-lived
// process (the shim) owns one or several containers (a pod).
//
// That difference decides the shape of the package:
//
//   - libcontainer guards a container with one mutex and holds it while it
//     waits for processes and hooks. Every long operation therefore works on a
//     view of its own (libcontainer.Load reads the state directory, as each
//     runc command does), and Status, Signal, Pause, Resume, Pids and Stats go
//     straight to the kernel. None of them waits for a Start or an Exec.
//   - Nothing calls wait4(-1). A process is watched through a pidfd in Go's
//     poller and waited for by its pid once it is dead, so that a tracer in
//     another process may hold back its exit without blocking anybody.
//   - Where every moment of a start counts, the cost is libcontainer's own: the
//     container's init is this very program, executed again, so each package
//     initialised before runtime/reexec delays every container.
//   - A program that uses this package must call Init, or import
//     runtime/reexec, before anything else: libcontainer runs /proc/self/exe
//     again with the argument "init" inside the new container.
//
// All methods of Container and Process are safe for concurrent use.
package runtime
