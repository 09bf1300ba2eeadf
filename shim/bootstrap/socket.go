// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSocketDir is containerd's (defaults.DefaultStateDir + "/s"). It is
// short on purpose: a socket's path ends at 107 bytes (unix(7)) and the name
// is a hash of 64.
const DefaultSocketDir = "/run/containerd/s"

const (
	unixScheme  = "unix://"
	maxSockPath = 106
	dialTimeout = 100 * time.Millisecond
)

// SocketPath is the socket of a group in a namespace. The hash is the one of
// containerd's own shims (pkg/shim CreateSocketAddress).
func SocketPath(dir, grpcAddress, namespace, group string) string {
	sum := sha256.Sum256([]byte(filepath.Join(grpcAddress, namespace, group)))
	return filepath.Join(dir, fmt.Sprintf("%x", sum))
}

// Listen makes the socket of a group. joined is true, and the listener nil, if
// a server answers there already: the new container is to join that server. A
// socket that nobody answers is a leftover and is replaced.
func Listen(path string) (l *net.UnixListener, joined bool, err error) {
	if len(path) > maxSockPath {
		return nil, false, fmt.Errorf("socket %s: the path has more than %d bytes; choose a shorter socket directory", path, maxSockPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, false, fmt.Errorf("socket directory: %w", err)
	}
	l, err = listen(path)
	if errors.Is(err, unix.EADDRINUSE) {
		if Answers(path) {
			return nil, true, nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, false, fmt.Errorf("remove stale socket: %w", err)
		}
		l, err = listen(path)
	}
	if err != nil {
		return nil, false, fmt.Errorf("socket %s: %w", path, err)
	}
	// The server inherits the socket and this process exits: keep the name.
	l.SetUnlinkOnClose(false)
	return l, false, nil
}

func listen(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Answers tells whether a server accepts connections at path.
func Answers(path string) bool {
	c, err := net.DialTimeout("unix", path, dialTimeout)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Address is the form in which containerd wants the path.
func Address(path string) string { return unixScheme + path }

// Path is the reverse of Address; an address without the scheme is a path.
func Path(address string) string { return strings.TrimPrefix(address, unixScheme) }
