// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// make makes all that has arrived, and puts the processes into it. What it leaves
// behind on error goes with the container's own cgroup.
func (s *Subsystem) make() error {
	f := s.env.Frame
	for _, h := range s.hierarchies {
		p, err := find(h, f.Cgroups)
		if err != nil {
			return err
		}
		b := &builder{place: p, Hierarchy: h, dirs: []string{p.dir}, frame: f, proc: procfs.Host().Process(f.Init), known: map[owner]owner{}}
		if err := b.build(); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// builder makes one hierarchy.
type builder struct {
	*place
	*state.Hierarchy
	// dirs are the directories, the container's own first.
	dirs  []string
	frame *target.Frame
	proc  procfs.Task
	known map[owner]owner // on the host, by the container's numbers
}

// build takes the steps in the order of the package's comment.
func (b *builder) build() error {
	steps := [](func() error){b.each(b.mkdir), b.each(b.set), b.join, b.each(b.own)}
	if b.v2 {
		steps = [](func() error){b.each(b.mkdir), b.join, b.control, b.each(b.set), b.each(b.own)}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// each does something to every cgroup, parents first.
func (b *builder) each(fn func(c *state.Cgroup, dir string) error) func() error {
	return func() error {
		for _, c := range b.Cgroup {
			if err := fn(c, b.path(c)); err != nil {
				return fmt.Errorf("cgroup %s: %w", strings.TrimPrefix(b.path(c), b.dir), err)
			}
		}
		return nil
	}
}

func (b *builder) path(c *state.Cgroup) string {
	return filepath.Join(b.dirs[c.Parent], string(c.Name))
}

// mkdir makes a cgroup. What it may do with devices is said before it has children,
// since the kernel lets nobody say it later.
func (b *builder) mkdir(c *state.Cgroup, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	b.dirs = append(b.dirs, dir)
	if c.Threaded {
		if err := write(dir, "cgroup.type", "threaded"); err != nil {
			return err
		}
	}
	for _, s := range c.Setting {
		if s.Name == "devices.list" {
			return setDevices(dir, string(s.Value))
		}
	}
	return nil
}

// control hands controllers down, from the container's own cgroup on.
func (b *builder) control() error {
	if err := enable(b.dir, b.SubtreeControl); err != nil {
		return fmt.Errorf("the container's own: %w", err)
	}
	return b.each(func(c *state.Cgroup, dir string) error { return enable(dir, c.SubtreeControl) })()
}

func enable(dir string, controllers []string) error {
	if len(controllers) == 0 {
		return nil
	}
	if err := available(dir, controllers); err != nil {
		return err
	}
	return write(dir, "cgroup.subtree_control", "+"+strings.Join(controllers, " +"))
}

// available: a cgroup of version 2 can hand these controllers down.
func available(dir string, controllers []string) error {
	there, err := words(dir, "cgroup.controllers")
	if err == nil && !within(controllers, there) {
		err = fmt.Errorf("it gave the ones below it the controllers %s, and has here %q: give it all of them, or restore it where it has them",
			strings.Join(controllers, ", "), strings.Join(there, ", "))
	}
	return err
}

// set makes the settings.
func (b *builder) set(c *state.Cgroup, dir string) error {
	for _, s := range c.Setting {
		if s.Name == "devices.list" {
			continue // see mkdir
		}
		if err := setOne(dir, b.dirs[c.Parent], s); err != nil {
			return fmt.Errorf("%s=%q: %w", s.Name, s.Value, err)
		}
	}
	return nil
}

// own gives every file its owner and permissions.
func (b *builder) own(c *state.Cgroup, dir string) error {
	base, err := b.outside(c.Uid, c.Gid)
	if err != nil {
		return err
	}
	if base != (owner{}) { // root, who has made them
		files, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.IsDir() {
				continue
			}
			if err := os.Lchown(filepath.Join(dir, f.Name()), int(base.uid), int(base.gid)); err != nil {
				return err
			}
		}
	}
	for _, f := range c.File {
		if err := b.ownFile(f, filepath.Join(dir, f.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // a file that this kernel has not is nobody's
		}
	}
	return nil
}

func (b *builder) ownFile(f *state.CgroupFile, path string) error {
	o, err := b.outside(f.Uid, f.Gid)
	if err != nil {
		return err
	}
	if err := os.Lchown(path, int(o.uid), int(o.gid)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if f.Name != "" && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is no file", path)
	}
	if st.Mode&permissions == f.Mode {
		return nil
	}
	return os.Chmod(path, os.FileMode(f.Mode))
}

// outside is an owner on the host.
func (b *builder) outside(uid, gid uint32) (owner, error) {
	in := owner{uid, gid}
	if out, ok := b.known[in]; ok {
		return out, nil
	}
	u, g, ok, err := target.HostOwner(b.proc, uid, gid)
	if err != nil {
		return owner{}, err
	}
	if !ok {
		return owner{}, fmt.Errorf("it belongs to %d:%d, which the container's user namespace has not", uid, gid)
	}
	b.known[in] = owner{u, g}
	return b.known[in], nil
}

// join puts processes and threads into their cgroups.
func (b *builder) join() error {
	for _, whole := range []bool{true, false} { // a thread goes where its process is, or below
		err := b.each(func(c *state.Cgroup, dir string) error {
			for _, m := range c.Member {
				if whole != (m.Tid == 0) {
					continue
				}
				if err := b.move(c, dir, m); err != nil {
					return fmt.Errorf("process %d, thread %d (0: all): %w", m.Process, m.Tid, err)
				}
			}
			return nil
		})()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) move(c *state.Cgroup, dir string, m *state.CgroupMember) error {
	t, err := b.frame.Stopped(record.ProcessID(m.Process))
	if err != nil {
		return err
	}
	if m.Tid == 0 {
		return join(dir, "cgroup.procs", t.Pid)
	}
	th := t.Threads[int(m.Tid)]
	if th == nil {
		return errors.New("there is no such thread")
	}
	if !b.v2 {
		return join(dir, "tasks", th.Tid)
	}
	if err := b.enter(c, t); err != nil {
		return err
	}
	return join(dir, "cgroup.threads", th.Tid)
}

// enter moves a process of version 2 into the domain that a threaded cgroup belongs
// to, where it is not there yet: its threads may be in cgroups of that only.
func (b *builder) enter(c *state.Cgroup, t *target.Task) error {
	for c.Threaded && c.Parent > 0 {
		c = b.Cgroup[c.Parent-1]
	}
	domain := b.dir
	if !c.Threaded {
		domain = b.path(c)
	}
	pids, err := words(domain, "cgroup.procs")
	if err != nil || slices.Contains(pids, fmt.Sprint(t.Pid)) {
		return err
	}
	return join(domain, "cgroup.procs", t.Pid)
}

// write writes to a file of a cgroup, which takes one value with each call.
func write(dir, name, value string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(value), 0)
}
