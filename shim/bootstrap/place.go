// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// prSchedCoreProcessGroup is PIDTYPE_PGID of prctl(2) PR_SCHED_CORE: the
// cookie goes to the whole process group of the caller.
const prSchedCoreProcessGroup = 2

// newSchedCore puts this process group into a core scheduling domain of its
// own: only its tasks share the threads of a CPU core.
func newSchedCore() error {
	if err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, prSchedCoreProcessGroup, 0); err != nil {
		return fmt.Errorf("SCHED_CORE is set, but the kernel makes no core scheduling domain (CONFIG_SCHED_CORE, SMT): %w", err)
	}
	return nil
}

// place gives the server its cgroup and its OOM score.
func place(pid int, cgroup string) error {
	if cgroup != "" {
		if err := joinCgroup("/sys/fs/cgroup", cgroup, pid); err != nil {
			return err
		}
	}
	return adjustOOMScore("/proc", os.Getppid(), pid)
}

// joinCgroup moves pid into an existing cgroup, in every hierarchy that has it
// (version 1) or in the only one. root is the cgroup mount.
func joinCgroup(root, cgroup string, pid int) error {
	dirs := []string{filepath.Join(root, cgroup)}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		if dirs, err = filepath.Glob(filepath.Join(root, "*", cgroup)); err != nil {
			return fmt.Errorf("shim cgroup %s: %w", cgroup, err)
		}
	}
	joined := 0
	for _, dir := range dirs {
		if err := writeExisting(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("shim cgroup %s: join: %w", cgroup, err)
		}
		joined++
	}
	if joined == 0 {
		return fmt.Errorf("shim cgroup %s does not exist under %s", cgroup, root)
	}
	return nil
}

// writeExisting writes to a file of the kernel's, in one call, and makes none.
func writeExisting(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// maxOOMScoreAdj is OOM_SCORE_ADJ_MAX (proc(5)).
const maxOOMScoreAdj = 1000

// adjustOOMScore makes the shim a better victim than containerd by one, so that
// the daemon survives it.
func adjustOOMScore(proc string, parent, pid int) error {
	path := func(p int) string { return filepath.Join(proc, strconv.Itoa(p), "oom_score_adj") }
	data, err := os.ReadFile(path(parent))
	if err != nil {
		return fmt.Errorf("OOM score of containerd: %w", err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("OOM score of containerd: %w", err)
	}
	score = min(score+1, maxOOMScoreAdj)
	err = writeExisting(path(pid), strconv.Itoa(score))
	if err != nil && !userns.RunningInUserNS() {
		return fmt.Errorf("OOM score of the shim: %w", err)
	}
	return nil
}
