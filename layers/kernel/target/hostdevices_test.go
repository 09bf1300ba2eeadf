// SPDX-License-Identifier: Apache-2.0

package target

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// TestHostDevicesAreReadAnew: the number of a file system that the host has
// unmounted may be that of one of a container's a moment later.
func TestHostDevicesAreReadAnew(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts a file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	list, err := procfs.Host().Process(os.Getpid()).Mountinfo()
	if err != nil {
		t.Fatal(err)
	}
	var dev procfs.Dev
	for _, m := range list {
		if m.Target == dir {
			dev = m.Dev
		}
	}
	for _, want := range []bool{true, false} {
		host, err := HostDevices()
		if err != nil {
			t.Fatal(err)
		}
		if host[dev] != want {
			t.Errorf("device %v is one of the host's: %v, want %v", dev, host[dev], want)
		}
		if mounted {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			mounted = false
		}
	}
}
