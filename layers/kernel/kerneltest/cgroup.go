// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

const cgroupPrefix = "mig-kerneltest-" // the test's pid and a number follow

var cgroups atomic.Int64

// newCgroup makes a cgroup with a freezer, removed when the test ends.
func newCgroup(t testing.TB) (dir string, f *target.Freezer) {
	t.Helper()
	root, err := freezerMount()
	if err != nil {
		t.Fatal(err)
	}
	sweep.Do(func() { removeLeftovers(root) })
	dir = filepath.Join(root, fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), cgroups.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	if f, err = target.NewFreezer(dir); err != nil {
		t.Fatal(err)
	}
	return dir, f
}

var sweep sync.Once

// removeLeftovers clears what tests that were killed have left behind: nobody
// else does.
func removeLeftovers(root string) {
	dirs, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); err == nil {
			continue
		}
		f, err := target.NewFreezer(dir)
		if err != nil {
			continue
		}
		_ = f.Thaw()
		pids, _ := f.Pids()
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for range 100 {
			if os.Remove(dir) == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// freezerMount finds version 1's freezer hierarchy, or version 2's.
func freezerMount() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	unified := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		left, right, _ := strings.Cut(sc.Text(), " - ")
		mount, super := strings.Fields(left), strings.Fields(right)
		if len(mount) < 5 || len(super) < 3 {
			continue
		}
		switch {
		case super[0] == "cgroup" && strings.Contains(super[2], "freezer"):
			return mount[4], nil
		case super[0] == "cgroup2":
			unified = mount[4]
		}
	}
	if unified == "" {
		return "", errors.New("no cgroup hierarchy with a freezer is mounted")
	}
	return unified, nil
}

func joinCgroup(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// removeCgroup waits for the last process to leave.
func removeCgroup(t testing.TB, dir string) {
	var err error
	for range 1000 {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("leftover cgroup: %v", err)
}
