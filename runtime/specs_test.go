// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func bind(source, target string, options ...string) specs.Mount {
	return specs.Mount{Type: "bind", Source: source, Destination: target, Options: append([]string{"rbind"}, options...)}
}

// hooks makes one hook of the named kind that runs a shell script.
func hooks(kind, script string) *specs.Hooks {
	h := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}}
	switch kind {
	case "prestart":
		//lint:ignore SA1019 still in use by clients
		return &specs.Hooks{Prestart: h}
	case "createRuntime":
		return &specs.Hooks{CreateRuntime: h}
	case "createContainer":
		return &specs.Hooks{CreateContainer: h}
	case "startContainer":
		return &specs.Hooks{StartContainer: h}
	case "poststart":
		return &specs.Hooks{Poststart: h}
	case "poststop":
		return &specs.Hooks{Poststop: h}
	}
	panic(fmt.Sprintf("no hook kind %q", kind))
}

// withUserns maps 65536 ids from 100000 on.
func withUserns(spec *specs.Spec) {
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
}

func dropNamespace(spec *specs.Spec, kind specs.LinuxNamespaceType) {
	var kept []specs.LinuxNamespace
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type != kind {
			kept = append(kept, ns)
		}
	}
	spec.Linux.Namespaces = kept
}
