// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import "github.com/io-mig/mig/layers/kernel/target"

// Allowed is what an import may ask for.
type Allowed = target.Allowed

// allCapabilities is CAP_CHOWN (0) to CAP_CHECKPOINT_RESTORE (40).
const allCapabilities = 1<<41 - 1

// Root allows what a privileged container's root may do.
func Root() *Allowed {
	return &Allowed{
		Bounding: allCapabilities, Permitted: allCapabilities, Effective: allCapabilities,
	}
}
