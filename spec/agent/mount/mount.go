// SPDX-License-Identifier: Apache-2.0

// Package mount says how a container gets its agent's socket. The shim mounts it,
// beside what is in the container's configuration, and the engine expects it.
package mount

import (
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/spec/agent"
)

// Annotation asks for an agent: "true".
const Annotation = "io.mig/agent"

// Wanted reports that the container asks for an agent.
func Wanted(spec *specs.Spec) bool { return spec.Annotations[Annotation] == "true" }

// Source is the directory of the host that is mounted for the container with this
// bundle.
func Source(bundle string) string { return filepath.Join(bundle, "agent") }

// Add returns the spec with the mount, if it asks for an agent; what it was given
// stays as it is. The container cannot write to the mount: it could put a socket of
// its own in the place of the shim's.
func Add(spec *specs.Spec, bundle string) *specs.Spec {
	if !Wanted(spec) {
		return spec
	}
	with := *spec
	with.Mounts = append(with.Mounts[:len(with.Mounts):len(with.Mounts)], specs.Mount{
		Destination: agent.Dir, Type: "bind", Source: Source(bundle),
		Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
	})
	return &with
}
