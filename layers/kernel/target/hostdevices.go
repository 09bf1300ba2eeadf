// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"os"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// HostDevices are the file systems that we see: what a container has of them
// outlives it. They are read behind the container's mounts, each time that those
// are: a number that is remembered may be that of another file system by now, one
// of the container's.
func HostDevices() (map[procfs.Dev]bool, error) {
	list, err := procfs.Host().Process(os.Getpid()).Mountinfo()
	if err != nil {
		return nil, fmt.Errorf("read the host's mounts: %w", err)
	}
	out := map[procfs.Dev]bool{}
	for _, m := range list {
		out[m.Dev] = true
	}
	return out, nil
}
