// SPDX-License-Identifier: Apache-2.0

// Package bootstrap is how a shim comes to life: containerd runs the binary
// with the action `start`, the binary finds or makes the socket of its group
// (a pod, or the container alone), starts itself again as the server behind
// that socket, and prints where it is.
//
// containerd speaks two dialects of this, and they are told apart by what
// arrives on standard input, because nothing else differs reliably (the
// variable MAX_SHIM_VERSION is 2 in both):
//
//	containerd      stdin                   stdout
//	1.6, 1.7        runtime options (Any)   plain address, plus the file `address`
//	2.0 to 2.2      runtime options (Any)   plain address (JSON would do as well)
//	2.3 and later   BootstrapParams         BootstrapResult
//
// Sources: containerd v2.4.2 core/runtime/v2/{command,shim}.go and
// pkg/shim/compat.go; v1.6 runtime/v2/{binary,shim}.go.
package bootstrap
