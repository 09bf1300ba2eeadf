// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	// Device rules are an optional part of the cgroup managers; without this
	// import starting a container fails.
	_ "github.com/opencontainers/cgroups/devices"

	"github.com/io-mig/mig/runtime/reexec"
)

// Init becomes the init process of a new container if this process was started
// as one by libcontainer, and does not return then; otherwise it does nothing.
// Importing this package has the same effect earlier (see runtime/reexec); a
// main that calls Init first says so where a reader looks for it.
func Init() { reexec.Run() }
