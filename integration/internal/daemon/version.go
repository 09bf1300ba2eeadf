// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os/exec"

	"github.com/io-mig/mig/integration/internal/repo"
)

// Version names one of the containerds that tests run against.
type Version string

// The two ends of what mig supports.
const (
	V16 Version = "1.6" // Debian 12's package
	V24 Version = "2.4" // built from its Go module, see integration/go.mod
)

// Versions lists all of them.
var Versions = []Version{V16, V24}

// programs are the executables that belong to one version.
type programs struct {
	containerd, ctr, runcShim string
}

func (v Version) programs(tree repo.Tree) (programs, error) {
	switch v {
	case V24:
		return programs{tree.Tool("containerd"), tree.Tool("ctr"), tree.Tool("containerd-shim-runc-v2")}, nil
	case V16:
		var p programs
		for name, where := range map[string]*string{
			"containerd": &p.containerd, "ctr": &p.ctr, "containerd-shim-runc-v2": &p.runcShim,
		} {
			path, err := exec.LookPath(name)
			if err != nil {
				return programs{}, fmt.Errorf("containerd 1.6 of Debian 12 is not installed (run hack/deps.sh): %w", err)
			}
			*where = path
		}
		return p, nil
	}
	return programs{}, fmt.Errorf("containerd version %q is not known", v)
}

// config returns the daemon's configuration file. Plugins with a socket or a
// directory outside dir are off, and so is CRI unless the caller's extra
// configuration needs it; what is off cannot collide with a system daemon.
func (v Version) config(dir string, cri bool, extra string) string {
	off := `"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs"`
	number, opt := 2, "io.containerd.internal.v1.opt"
	criPlugins := `"io.containerd.grpc.v1.cri"`
	if v == V24 {
		number = 3
		off = `"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri"`
		criPlugins += `, "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.podsandbox.controller.v1.podsandbox"`
	}
	if !cri {
		off += ", " + criPlugins
	}
	return fmt.Sprintf(`version = %d
root = "%[2]s/root"
state = "%[2]s/state"
disabled_plugins = [%[3]s]

[grpc]
  address = "%[2]s/c.sock"
[ttrpc]
  address = "%[2]s/c.sock.ttrpc"
[debug]
  level = "debug"
[plugins."%[4]s"]
  path = "%[2]s/opt"

%[5]s
`, number, dir, off, opt, extra)
}
