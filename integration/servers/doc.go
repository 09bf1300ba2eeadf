// SPDX-License-Identifier: Apache-2.0

// Package servers checkpoints and restores real servers of Debian's packages
// while their clients are at work. Server and clients run in one container,
// whose root is this machine's own with a writable layer of its own above it,
// so that no image has to be built. After each restore under another id
//
//   - the clients go on over the connections that they had, and count no error,
//   - the servers' own tools find the data whole.
//
// MIG_SERVER_ROUNDS says how many times each server goes through it; the
// default is 2, `make soak` takes 20.
package servers
