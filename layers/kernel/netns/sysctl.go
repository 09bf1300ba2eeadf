// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sysctlRoot shows each thread the settings of its own network namespace.
const sysctlRoot = "/proc/sys/net"

// Setting is one of /proc/sys/net: its path below that, and its value without the
// line's end.
type Setting struct{ Name, Value string }

// maxSetting bounds a value, in bytes.
const maxSetting = 4096

// sysctlDirs are those that belong to a namespace. What is in others, and what
// counts or acts (unsettled), is not carried.
var sysctlDirs = []string{"core", "ipv4", "ipv6", "unix", "netfilter", "mptcp"}

// unsettled are settings that say what is the case, that act when they are
// written to, or that are the machine's.
var unsettled = map[string]bool{
	"ipv4/route/flush": true, "ipv6/route/flush": true, "netfilter/nf_conntrack_count": true,
	"ipv4/tcp_available_congestion_control": true, "ipv4/tcp_available_ulp": true, "ipv4/tcp_fastopen_key": true,
	"ipv4/tcp_ehash_entries": true, "ipv6/fib_notify_on_flag_change": true,
}

// secret: it makes addresses that nobody should guess, and reading it fails
// unless it was set.
func secret(name string) bool { return strings.HasSuffix(name, "/stable_secret") }

// Settings are those of the calling thread's namespace that can be written.
func Settings() (out []Setting, err error) {
	for _, dir := range sysctlDirs {
		err := filepath.WalkDir(filepath.Join(sysctlRoot, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil // no such protocol, or an interface that went away
				}
				return err
			}
			name, _ := filepath.Rel(sysctlRoot, path)
			if d.IsDir() || unsettled[name] || secret(name) {
				return nil
			}
			if value, ok := readSetting(path); ok {
				out = append(out, Setting{name, value})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("settings of the network: %w", err)
		}
	}
	return out, nil
}

// readSetting reads one, if it can be read and written.
func readSetting(path string) (string, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&0o600 != 0o600 {
		return "", false
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	b := make([]byte, maxSetting)
	n, err := unix.Read(fd, b)
	if err != nil || n == len(b) {
		return "", false
	}
	return string(bytes.TrimRight(b[:n], "\n")), true
}

// Valid tells whether a setting that comes from elsewhere names a file that can
// be one.
func (s Setting) Valid() error {
	ok := len(s.Value) < maxSetting && len(s.Name) < maxSetting && filepath.Clean(s.Name) == s.Name && filepath.IsLocal(s.Name) &&
		!strings.ContainsRune(s.Name+s.Value, 0) && !unsettled[s.Name] && !secret(s.Name)
	dir, _, _ := strings.Cut(s.Name, "/")
	for _, d := range sysctlDirs {
		if ok && d == dir {
			return nil
		}
	}
	return fmt.Errorf("%.80q is no setting of a network namespace", s.Name)
}

// Set gives the calling thread's namespace the settings, where they differ. What
// this kernel does not have, or does not take, is returned: a namespace works
// without.
func Set(list []Setting) (failed []string, err error) {
	for _, s := range list {
		if err := s.Valid(); err != nil {
			return failed, err
		}
		path := filepath.Join(sysctlRoot, s.Name)
		is, ok := readSetting(path)
		if ok && is == s.Value {
			continue
		}
		if !ok {
			failed = append(failed, s.Name)
			continue
		}
		if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
			failed = append(failed, s.Name)
		}
	}
	return failed, nil
}
