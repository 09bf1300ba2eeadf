// SPDX-License-Identifier: Apache-2.0

// Package parity holds a test: ctr operations run on mig and on runc's shim,
// under every supported containerd, must not be told apart by exit status,
// output, states and events. What legitimately differs (process ids, the
// runtime's name, the wording of an error around its cause) is taken out by
// the probe, in one place each.
//
//	go test ./parity -run 'TestParity/containerd-2.4/tty'
//	go test ./parity -args -runtime io.containerd.runc.v2   # the test against itself
package parity
