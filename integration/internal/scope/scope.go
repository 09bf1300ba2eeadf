// SPDX-License-Identifier: Apache-2.0

// Package scope owns everything on this machine that belongs to one private
// daemon: it can find it (processes, mounts, cgroups, files), say what leaked,
// and destroy it. Things are found by a name that occurs in all of them: the
// directory, the containerd namespace and an environment mark share it.
package scope

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prefix starts every scope's name, so that Sweep can find dead ones.
const prefix = "migtest"

// parent holds the scopes' directories. Unix sockets limit it to few letters.
const parent = "/tmp"

// Scope is one private daemon's corner of the machine.
type Scope struct {
	Name string // unique, fit for a containerd namespace
	Dir  string
}

// New makes a scope with an empty directory, after destroying those whose
// owner has died without doing so.
func New() (Scope, error) {
	if os.Geteuid() != 0 {
		return Scope{}, errors.New("a private containerd needs root: run make test")
	}
	if err := Sweep(); err != nil {
		return Scope{}, err
	}
	// The owner's pid and start time are in the name: pids are reused.
	pattern := fmt.Sprintf("%s-%d-%s-", prefix, os.Getpid(), startTime(os.Getpid()))
	dir, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		return Scope{}, err
	}
	// Containers with a user namespace have to traverse it.
	if err := os.Chmod(dir, 0o711); err != nil {
		return Scope{}, err
	}
	return Scope{Name: filepath.Base(dir), Dir: dir}, nil
}

// Sweep destroys the scopes that dead processes left behind.
func Sweep() error {
	dirs, err := filepath.Glob(filepath.Join(parent, prefix+"-*-*-*"))
	if err != nil {
		return err
	}
	var failed []error
	for _, dir := range dirs {
		s := Scope{Name: filepath.Base(dir), Dir: dir}
		if !s.ownerAlive() {
			failed = append(failed, s.Destroy())
		}
	}
	return errors.Join(failed...)
}

func (s Scope) ownerAlive() bool {
	fields := strings.Split(s.Name, "-")
	pid, err := strconv.Atoi(fields[1])
	return err == nil && startTime(pid) == fields[2]
}

// startTime is field 22 of /proc/PID/stat, or "" where there is no such
// process. See proc(5).
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The command in field 2 may hold spaces and parentheses.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	fields := strings.Fields(rest)
	return fields[22-3]
}

// Mark is an environment variable for the daemon: its shims inherit it.
func (s Scope) Mark() string { return "MIG_TEST_SCOPE=" + s.Name }

// settle is how long processes may take to end on their own once their
// container is deleted: a shim answers Shutdown before it exits.
const settle = 3 * time.Second

// Leaks names what is there beside the processes in keep, after waiting a
// little for what is just ending. The daemon's own directory is not a leak.
func (s Scope) Leaks(keep ...int) []string {
	var leaks []string
	for end := time.Now().Add(settle); ; time.Sleep(20 * time.Millisecond) {
		leaks = s.find(keep)
		if len(leaks) == 0 || time.Now().After(end) {
			return leaks
		}
	}
}

func (s Scope) find(keep []int) []string {
	var leaks []string
	for _, p := range s.processes(keep) {
		leaks = append(leaks, "process "+p.String())
	}
	for _, mount := range s.mounts() {
		leaks = append(leaks, "mount "+mount)
	}
	for _, dir := range s.cgroups() {
		leaks = append(leaks, "cgroup "+dir)
	}
	for _, dir := range append(s.runDirs(), s.tempFiles()...) {
		if dir == s.history() {
			leaks = append(leaks, s.notHistory()...)
			continue
		}
		leaks = append(leaks, "file "+dir)
	}
	return leaks
}

// history is where mig keeps what became of the requests of a namespace, for
// mig status: meant to stay.
func (s Scope) history() string { return filepath.Join("/run/mig", s.Name) }

// orphanAge is that of layers/request: a shim that is killed while it writes a
// status leaves a temporary file, which a later request removes at this age.
const orphanAge = time.Minute

// notHistory names what is in there beside statuses, DIR/requests/ID.json, and
// beside young temporary files of theirs.
func (s Scope) notHistory() (found []string) {
	_ = filepath.WalkDir(s.history(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		inRequests := filepath.Base(filepath.Dir(path)) == "requests"
		if inRequests && (filepath.Ext(path) == ".json" || strings.HasPrefix(entry.Name(), ".tmp-") && young(entry)) {
			return nil
		}
		found = append(found, "file "+path)
		return nil
	})
	return found
}

func young(entry fs.DirEntry) bool {
	info, err := entry.Info()
	return err != nil || time.Since(info.ModTime()) < orphanAge // gone meanwhile is young
}

// Destroy kills the scope's processes, unmounts and removes everything.
func (s Scope) Destroy() error {
	var failed []error
	var orphaned []string
	// What was just forked appears in the next look.
	for attempt := 0; attempt < 50; attempt++ {
		processes := s.processes(nil)
		if len(processes) == 0 {
			break
		}
		orphaned = append(orphaned, sockets(processes)...)
		for _, p := range processes {
			if err := syscall.Kill(p.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				failed = append(failed, fmt.Errorf("kill %s: %w", p, err))
			}
		}
		s.thaw()
		time.Sleep(20 * time.Millisecond)
	}
	failed = append(failed, s.unmount(), s.removeCgroups())
	for _, path := range append(append(s.allRunDirs(), orphaned...), s.Dir) {
		failed = append(failed, os.RemoveAll(path))
	}
	return errors.Join(failed...)
}

// allRunDirs finds directories below /run that bear the scope's name:
// runtimes keep their state in /run/.../NAMESPACE.
func (s Scope) allRunDirs() []string {
	var found []string
	for _, pattern := range []string{"/run/%s", "/run/*/%s", "/run/*/*/%s"} {
		matches, _ := filepath.Glob(fmt.Sprintf(pattern, s.Name))
		found = append(found, matches...)
	}
	return found
}

// runDirs leaves out the empty ones: a namespace's own directory is nobody's
// to remove while the daemon runs.
func (s Scope) runDirs() []string {
	var found []string
	for _, dir := range s.allRunDirs() {
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			found = append(found, dir)
		}
	}
	return found
}

// tempFiles lists what was left in the daemon's TMPDIR.
func (s Scope) tempFiles() []string {
	var found []string
	entries, err := os.ReadDir(filepath.Join(s.Dir, "tmp"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return []string{err.Error()}
	}
	for _, entry := range entries {
		found = append(found, filepath.Join(s.Dir, "tmp", entry.Name()))
	}
	return found
}
