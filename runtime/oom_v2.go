// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// oomV2 watches memory.events for kills and cgroup.events for the end: both
// files give IN_MODIFY when they change (Documentation/admin-guide/cgroup-v2.rst).
func oomV2(dir string) (next func() (bool, error), source *os.File, err error) {
	memory, cgroup := filepath.Join(dir, "memory.events"), filepath.Join(dir, "cgroup.events")
	last, err := eventCount(memory, "oom_kill")
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("inotify: %w", err)
	}
	source = os.NewFile(uintptr(fd), "inotify")
	for _, path := range []string{memory, cgroup} {
		if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
			source.Close()
			return nil, nil, &os.PathError{Op: "inotify_add_watch", Path: path, Err: err}
		}
	}
	// Which file it was does not matter: both are read, events and all.
	events := make([]byte, 4096)
	next = func() (bool, error) {
		if _, err := source.Read(events); err != nil {
			return false, err
		}
		count, err := eventCount(memory, "oom_kill")
		if err != nil {
			return false, err
		}
		happened := count > last
		last = count
		populated, err := eventCount(cgroup, "populated")
		if err == nil && populated == 0 {
			err = io.EOF
		}
		return happened, err
	}
	return next, source, nil
}

// eventCount reads one value of a "key value" file.
func eventCount(path, key string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && name == key {
			return strconv.ParseUint(value, 10, 64)
		}
	}
	return 0, &os.PathError{Op: "read", Path: path, Err: errors.New("no line " + key)}
}
