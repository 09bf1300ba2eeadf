// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// groupLabels are the annotations that put containers into one shim, in the
// order in which they are looked at: the same as runc's shim, so that a pod's
// configuration means the same under both.
var groupLabels = []string{
	"io.containerd.runc.v2.group",
	"io.kubernetes.cri.sandbox-id",
}

// Group is the group of the container whose bundle this is, id if it has none.
func Group(bundle, id string) (string, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("container %s: %w", id, err)
	}
	// Only what is needed: a full spec takes ten times as long to decode.
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return "", fmt.Errorf("container %s: %s is no OCI configuration: %w", id, path, err)
	}
	for _, label := range groupLabels {
		if group := spec.Annotations[label]; group != "" {
			return group, nil
		}
	}
	return id, nil
}
