// SPDX-License-Identifier: Apache-2.0

// Package names holds what the shim and the engine call the descriptors that
// travel with a job, so that neither needs the other.
package names

const (
	// FrameSocket is the engine's end of the pair whose other end the frame has.
	FrameSocket = "frame socket"
	// FrameSeized is the writing end of a pipe: one byte says that the frame is
	// seized and may be let exec its program.
	FrameSeized = "frame seized"
)
