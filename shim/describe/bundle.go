// SPDX-License-Identifier: Apache-2.0

package describe

// BundleFile is the shim's own file in a container's bundle. Only bundles of
// this runtime have one.
const BundleFile = "mig.json"

// Bundle is its content: what others need to find the container by its bundle.
// It is written before anything exists that they would have to remove.
type Bundle struct {
	// Root is the runtime's directory of state directories, see runtime.Load.
	Root string `json:"root"`
	// Scratch is the daemon's temporary copy of an image, if any.
	Scratch string `json:"scratch,omitempty"`
}
