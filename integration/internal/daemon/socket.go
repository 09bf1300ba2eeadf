// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// noteIDs keeps every word that may be a container's id: all but ctr's flags.
// A shim's socket bears a hash of its id, so that only who knows the id finds
// it.
func (d *Daemon) noteIDs(args []string) {
	for _, word := range args {
		if !strings.HasPrefix(word, "-") {
			d.ids.Store(word, nil)
		}
	}
}

// socketLeaks names the sockets of shims whose containers are all gone. The
// hash is that of containerd's pkg/shim, SocketAddress.
func (d *Daemon) socketLeaks() (leaks []string) {
	d.ids.Range(func(id, _ any) bool {
		sum := sha256.Sum256([]byte(filepath.Join(d.Address, d.Namespace, id.(string))))
		path := fmt.Sprintf("/run/containerd/s/%x", sum)
		if _, err := os.Lstat(path); err == nil {
			leaks = append(leaks, fmt.Sprintf("socket %s of %s", path, id))
			// Reported once; it must not stay on the machine.
			_ = os.Remove(path)
		}
		return true
	})
	return leaks
}
