// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// socketDir is where shims listen, whatever the daemon's state directory:
// containerd fixes it (defaults.DefaultStateDir + "/s").
const socketDir = "/run/containerd/s/"

// sockets returns the paths at which these processes listen below socketDir. A
// shim that is killed leaves its socket, and the name, a hash, does not tell
// whose it was: ask before killing.
func sockets(processes []Process) []string {
	paths := listening()
	if len(paths) == 0 {
		return nil
	}
	var found []string
	for _, p := range processes {
		fds, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(p.Pid), "fd/*"))
		for _, fd := range fds {
			target, _ := os.Readlink(fd)
			if path := paths[target]; path != "" {
				found = append(found, path)
			}
		}
	}
	return found
}

// listening maps sockets, as links in /proc/PID/fd name them, to their paths
// below socketDir. A line of /proc/net/unix ends with inode and path.
func listening() map[string]string {
	table, _ := os.ReadFile("/proc/net/unix")
	paths := map[string]string{}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) == 8 && strings.HasPrefix(fields[7], socketDir) {
			paths["socket:["+fields[6]+"]"] = fields[7]
		}
	}
	return paths
}
