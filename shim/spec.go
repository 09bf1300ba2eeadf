// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// loadSpec reads the bundle's OCI configuration.
func loadSpec(bundle string) (*specs.Spec, error) {
	name := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("OCI configuration: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("OCI configuration %s: %w", name, err)
	}
	return &spec, nil
}

// sharesPids tells whether the container has no pid namespace of its own, so
// that its other processes survive the init.
func sharesPids(spec *specs.Spec) bool {
	if spec.Linux == nil {
		return true
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace && ns.Path == "" {
			return false
		}
	}
	return true
}

// ownCgroup gives a restored container the cgroup of its own id. Its spec was
// made for the container that was checkpointed, and names that one's cgroup,
// where the original may still run. A path that was not derived from an id
// (somebody chose it) is kept.
func ownCgroup(cgroup, namespace, id string) string {
	if parts := strings.Split(cgroup, ":"); len(parts) == 3 { // slice:prefix:name
		return strings.Join([]string{parts[0], parts[1], id}, ":")
	}
	if path.Dir(path.Clean(cgroup)) == path.Join("/", namespace) { // /namespace/id
		return path.Join("/", namespace, id)
	}
	return cgroup
}
