// SPDX-License-Identifier: Apache-2.0

// Package smoke has only tests: they run the shim under private containerd
// daemons, Debian's 1.6 and the pinned 2.x where `make tools` has built it,
// with their own socket, root and state. They need root; everything they make
// is in a temporary directory, a containerd namespace and cgroups of its own,
// and is looked for at the end.
package smoke
