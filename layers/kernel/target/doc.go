// SPDX-License-Identifier: Apache-2.0

// Package target is what the kernel subsystems work on: on the source the
// stopped processes of a container (Source), on the destination the frame that
// becomes the image's processes (Frame). It owns tracers, descriptor
// identities and the freezer, so that subsystems own none of them, and it
// serves control as its Container on either side.
//
// Identity crosses between subsystems here and nowhere else: the id of an open
// file description is made by Source.Descriptors and resolved by
// Process.Describe/Description; no subsystem imports another.
package target
