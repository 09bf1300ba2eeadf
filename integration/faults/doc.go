// SPDX-License-Identifier: Apache-2.0

// Package faults tests what goes wrong: state that cannot be carried, damaged
// and hostile images, full disks, and the death of every process that takes
// part. Each test asserts what the user sees, what became of the container, by
// its own account, and that nothing is left behind.
package faults
