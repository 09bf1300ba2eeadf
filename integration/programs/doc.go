// SPDX-License-Identifier: Apache-2.0

// Package programs holds programs that verify themselves, one for each kind of
// kernel state (src), and runs each of them through checkpoints and restores.
//
// A program builds its state, says "ready", and is asked by SIGUSR1 to verify
// the state once the harness has done with it. Each goes this way:
//
//	run -> checkpoint, runs on -> asked, verifies             (the original)
//	              \-> restore -> checkpoint, exits
//	                                 \-> restore -> asked, verifies
//
// as root of the host's user namespace, as an unprivileged user, and as root of
// a user namespace. A program whose state cannot be carried must be refused
// with the text that it names, and verifies itself all the same.
package programs
