// SPDX-License-Identifier: Apache-2.0

package agent

import "path/filepath"

// Annotation asks for an agent: "true".
const Annotation = "io.mig/agent"

// Mount is a mount of an OCI spec.
type Mount struct {
	Destination, Source string
	Options             []string
}

// MountOf is what a shim mounts for a container with these annotations and this
// bundle; false if it does not ask for an agent. The container cannot write to
// it: it could put a socket of its own in the place of the shim's.
func MountOf(annotations map[string]string, bundle string) (Mount, bool) {
	if annotations[Annotation] != "true" {
		return Mount{}, false
	}
	return Mount{
		Destination: Dir, Source: filepath.Join(bundle, "agent"),
		Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
	}, true
}
