// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestOwnNamespace(t *testing.T) {
	for name, c := range map[string]struct {
		spec *specs.Spec
		want bool
	}{
		"no linux":   {&specs.Spec{}, false},
		"the host's": {&specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}}}, false},
		"a pod's":    {&specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.IPCNamespace, Path: "/proc/7/ns/ipc"}}}}, false},
		"its own":    {&specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.IPCNamespace}}}}, true},
	} {
		if got := ownNamespace(c.spec, specs.IPCNamespace); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
