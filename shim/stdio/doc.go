// SPDX-License-Identifier: Apache-2.0

// Package stdio connects a process's standard input and output to what
// containerd named: FIFOs, a file (file://), a logging program (binary://,
// binary-v2://), a terminal behind any of them, or nothing.
//
// Between process and sink there is always a pipe or a pseudoterminal of the
// shim's. So a client can go away and come back without the container's
// noticing, and a checkpoint finds at descriptors 0 to 2 objects that a restore
// can replace.
package stdio
