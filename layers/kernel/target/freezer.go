// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Freezer is the container's cgroup as far as quiescing needs it: freezing and
// listing. Both hierarchies are served: v1's freezer.state
// (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst) and v2's
// cgroup.freeze (cgroup-v2.rst).
type Freezer struct {
	dir string
	v2  bool
}

// NewFreezer uses the cgroup directory dir, of either version.
func NewFreezer(dir string) (*Freezer, error) {
	if _, err := os.Stat(filepath.Join(dir, "freezer.state")); err == nil {
		return &Freezer{dir: dir}, nil
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.freeze")); err == nil {
		return &Freezer{dir: dir, v2: true}, nil
	}
	return nil, fmt.Errorf("%s has neither freezer.state nor cgroup.freeze: it is no cgroup with a freezer", dir)
}

// Dir is the cgroup's directory.
func (f *Freezer) Dir() string { return f.dir }

// Frozen reports whether the cgroup is frozen or on the way to it.
func (f *Freezer) Frozen() (bool, error) {
	name := "freezer.state"
	if f.v2 {
		name = "cgroup.freeze"
	}
	b, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		return false, fmt.Errorf("read the freezer: %w", err)
	}
	s := strings.TrimSpace(string(b))
	return s == "FROZEN" || s == "FREEZING" || s == "1", nil
}

// Freeze asks for the freezing of every task and waits until it is done. On
// error the cgroup is thawed again.
func (f *Freezer) Freeze(ctx context.Context) error {
	if err := f.write("FROZEN", "1"); err != nil {
		return fmt.Errorf("freeze %s: %w", f.dir, err)
	}
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		done, err := f.settled()
		if err == nil && done {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("freeze %s: %w", f.dir, err), f.Thaw())
		}
		time.Sleep(wait)
	}
}

// Thaw lets the tasks go on. A cgroup that is gone has nothing to thaw.
func (f *Freezer) Thaw() error {
	err := f.write("THAWED", "0")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("thaw %s: %w", f.dir, err)
	}
	return nil
}

func (f *Freezer) write(v1, v2 string) error {
	name, text := "freezer.state", v1
	if f.v2 {
		name, text = "cgroup.freeze", v2
	}
	return os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0)
}

// settled: every task is frozen. v1 may stay FREEZING for ever if a task was
// on its way when the state was written, and is asked again (the kernel tries
// anew at each read).
func (f *Freezer) settled() (bool, error) {
	if !f.v2 {
		b, err := os.ReadFile(filepath.Join(f.dir, "freezer.state"))
		return strings.TrimSpace(string(b)) == "FROZEN", err
	}
	b, err := os.ReadFile(filepath.Join(f.dir, "cgroup.events"))
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == "frozen 1" {
			return true, nil
		}
	}
	return false, err
}

// Pids lists the processes of the cgroup and of those below it, as the
// engine's pid namespace sees them, each once.
func (f *Freezer) Pids() ([]int, error) {
	pids, children, err := f.walk()
	if err == nil && children {
		// One that was moved from a cgroup that had not been read to one that had
		// been is in no list of the first walk.
		var again []int
		if again, _, err = f.walk(); err == nil {
			pids = merge(pids, again)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list the processes of %s: %w", f.dir, err)
	}
	return pids, nil
}

// merge appends what is new in more to pids, without repetitions.
func merge(pids, more []int) []int {
	seen := make(map[int]bool, len(pids))
	var out []int
	for _, list := range [][]int{pids, more} {
		for _, pid := range list {
			if !seen[pid] {
				seen[pid] = true
				out = append(out, pid)
			}
		}
	}
	return out
}

// walk lists once. children: there are cgroups below, which come and go while
// their processes run.
func (f *Freezer) walk() (pids []int, children bool, err error) {
	err = filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			return nil
		}
		below := path != f.dir
		children = children || below
		var list []int
		if err == nil {
			list, err = readProcs(path)
		}
		pids = append(pids, list...)
		if below && CgroupGone(err) {
			return nil
		}
		return err
	})
	return pids, children, err
}

// CgroupGone reports whether a file of a cgroup could not be read because the
// cgroup was removed, before or after the file was opened.
func CgroupGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// readProcs reads the list of one cgroup. The processes of a threaded one are
// those of the domain above it, and it names none.
func readProcs(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, s := range strings.Fields(string(b)) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, fmt.Errorf("%s/cgroup.procs: %w", dir, err)
		}
		if n == 0 {
			return nil, fmt.Errorf("%s/cgroup.procs holds a process of another pid namespace", dir)
		}
		pids = append(pids, n)
	}
	return pids, nil
}
