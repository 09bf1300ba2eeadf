// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/userns"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// check refuses what libcontainer would misread or fail on half-way.
func (o *CreateOptions) check() error {
	switch {
	case !filepath.IsAbs(o.Root) || filepath.Clean(o.Root) == "/":
		return fmt.Errorf("state root %q: need an absolute path other than /", o.Root)
	case !filepath.IsAbs(o.Bundle):
		return fmt.Errorf("bundle %q: need an absolute path", o.Bundle)
	case o.Spec == nil || o.Spec.Root == nil:
		return errors.New("spec: root must be set")
	case o.Spec.Linux == nil:
		return errors.New("spec: linux must be set")
	case o.Frame != nil && (o.Frame.ELF == nil || o.Frame.Socket == nil):
		return errors.New("frame: need both the program and the socket")
	}
	return checkProcess(o.Spec.Process)
}

// newConfig converts the spec. libcontainer's converter takes the working
// directory for the bundle, which is right for runc and wrong for a shim that
// serves several bundles: so relative paths are resolved first, and the bundle's
// label, which hooks read, is put right afterwards.
func newConfig(o CreateOptions) (*configs.Config, error) {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       o.ID,
		UseSystemdCgroup: o.SystemdCgroup,
		NoPivotRoot:      o.NoPivotRoot,
		NoNewKeyring:     o.NoNewKeyring,
		Spec:             resolvePaths(o.Spec, o.Bundle),
		RootlessEUID:     os.Geteuid() != 0,
		RootlessCgroups:  rootlessCgroups(),
	})
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	// The converter appends the label last; annotations come before it.
	if len(config.Labels) == 0 {
		return nil, errors.New("spec: libcontainer's configuration has no bundle label")
	}
	config.Labels[len(config.Labels)-1] = "bundle=" + filepath.Clean(o.Bundle)
	if o.Frame != nil && !config.Namespaces.Contains(configs.NEWTIME) && configs.IsNamespaceSupported(configs.NEWTIME) {
		// The engine gives the frame the clocks of its image, in a time
		// namespace. Exec sessions join it only if the configuration has one.
		config.Namespaces.Add(configs.NEWTIME, "")
	}
	return config, nil
}

// resolvePaths returns a copy of the spec whose root and bind sources are
// absolute. The caller's spec is not changed.
func resolvePaths(spec *specs.Spec, bundle string) *specs.Spec {
	s := *spec
	root := *spec.Root
	if !filepath.IsAbs(root.Path) {
		root.Path = filepath.Join(bundle, root.Path)
	}
	s.Root = &root
	s.Mounts = slices.Clone(spec.Mounts)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if isBind(m) && m.Source != "" && !filepath.IsAbs(m.Source) {
			m.Source = filepath.Join(bundle, m.Source)
		}
	}
	return &s
}

func isBind(m *specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// rootlessCgroups says whether failures to make a cgroup are to be borne: when
// we are not root, or root of a user namespace only.
func rootlessCgroups() bool {
	return os.Geteuid() != 0 || userns.RunningInUserNS()
}
