// SPDX-License-Identifier: Apache-2.0

//go:build !(linux && amd64)

package tracer

// The tracer changes registers and injects machine code; it exists for
// Linux on x86-64 only. Another machine needs its own code_*.go, sigframe
// and register layout (see spec/arch).
var _ = package_tracer_supports_only_linux_on_amd64
