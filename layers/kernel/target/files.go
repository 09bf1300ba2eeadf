// SPDX-License-Identifier: Apache-2.0

package target

import "slices"

// Files is what a host says of a container's file systems.
type Files struct {
	// Root is where the host has the container's root mounted, "" if that is not
	// known.
	Root string
	// Moves: the container goes to, or comes from, another host, so that what
	// is below Root travels. Otherwise whoever asked sees to it.
	Moves bool
	// Mounts are those of the live spec, in its order. Complete: with the
	// following, they are all that a runtime makes.
	Mounts   []SpecMount
	Complete bool
	// Masked are the paths that the live spec masks or makes read-only, Devices
	// those of its device nodes.
	Masked, Devices []string
	// Hooks: programs of the host mount what they like in a new container.
	Hooks bool
}

// SpecMount is one mount of an OCI spec.
type SpecMount struct {
	Destination, Type, Source string
	Options                   []string
}

// Bind reports whether the mount shows a directory or a file of the host.
func (m *SpecMount) Bind() bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// ReadOnly reports whether the container cannot write to it.
func (m *SpecMount) ReadOnly() bool {
	// The last one counts.
	for _, o := range slices.Backward(m.Options) {
		switch o {
		case "ro", "rro":
			return true
		case "rw":
			return false
		}
	}
	return false
}
