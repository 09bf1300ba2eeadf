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
	"github.com/io-mig/mig/spec/state"
)

// Limits of a hierarchy below the container's own cgroup: cgroups, levels, and
// bytes of one setting.
const (
	maxCgroups = 4096
	maxDepth   = 32
	maxValue   = 64 << 10
)

// tree is what was found in one hierarchy.
type tree struct {
	*place
	*state.Hierarchy
	// dirs are the directories, the container's own first: that of Cgroup[i] is
	// dirs[i+1]. levels are how deep they lie.
	dirs   []string
	levels []int
	// frozen are those that the container has frozen, lost the settings that are
	// not carried, both relative to the container's own.
	frozen, lost []string

	owners *owners
	// modes are the permissions of the files of the container's own cgroup.
	modes map[string]uint32
}

// read looks at everything below a place. A cgroup that goes away meanwhile, which
// can only be while the container runs, is left out. init is a process of the
// container.
func read(p *place, init procfs.Task) (*tree, error) {
	t := &tree{
		place: p, Hierarchy: &state.Hierarchy{Controller: p.controllers}, dirs: []string{p.dir}, levels: []int{0},
		owners: &owners{proc: init, known: map[owner]owner{}}, modes: map[string]uint32{},
	}
	if err := t.own(); err != nil {
		return nil, err
	}
	for i := 0; i < len(t.dirs); i++ {
		if err := t.below(i); err != nil && !target.CgroupGone(err) {
			return nil, fmt.Errorf("%s: below %s: %w", p, t.dirs[i], err)
		}
	}
	return t, nil
}

func (t *tree) own() (err error) {
	files, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil && !f.IsDir() {
			t.modes[f.Name()] = uint32(info.Mode().Perm())
		}
	}
	if t.v2 {
		t.SubtreeControl, err = words(t.dir, "cgroup.subtree_control")
	}
	return err
}

// below adds the children of the cgroup whose directory is dirs[at].
func (t *tree) below(at int) error {
	entries, err := os.ReadDir(t.dirs[at])
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(t.dirs[at], e.Name())
		if t.levels[at]+1 > maxDepth {
			return fmt.Errorf("%s lies deeper than %d levels, which is the limit", dir, maxDepth)
		}
		if len(t.Cgroup) == maxCgroups {
			return fmt.Errorf("there are more cgroups than %d, which is the limit", maxCgroups)
		}
		c := &state.Cgroup{Parent: uint32(at), Name: []byte(e.Name())}
		if err := t.describe(c, dir, t.dirs[at]); target.CgroupGone(err) {
			continue
		} else if err != nil {
			return err
		}
		t.Cgroup = append(t.Cgroup, c)
		t.dirs, t.levels = append(t.dirs, dir), append(t.levels, t.levels[at]+1)
	}
	return nil
}

// describe reads one cgroup.
func (t *tree) describe(c *state.Cgroup, dir, parent string) (err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, e.Name())
		}
	}
	if err := t.frozenIn(dir); err != nil {
		return err
	}
	if t.v2 {
		kind, err := words(dir, "cgroup.type")
		if err != nil {
			return err
		}
		c.Threaded = len(kind) == 1 && kind[0] == "threaded"
		if c.SubtreeControl, err = words(dir, "cgroup.subtree_control"); err != nil {
			return err
		}
	}
	if c.Setting, err = t.settings(files, dir, parent); err != nil {
		return err
	}
	return t.describeOwners(c, files, dir)
}

// frozenIn notes a cgroup that was frozen by itself.
func (t *tree) frozenIn(dir string) error {
	name := "freezer.self_freezing"
	if t.v2 {
		name = "cgroup.freeze"
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another controller's hierarchy
	}
	if strings.TrimSpace(string(text)) == "1" {
		t.frozen = append(t.frozen, strings.TrimPrefix(dir, t.dir))
	}
	return err
}

// settings are those that a new cgroup does not have, in their order.
func (t *tree) settings(files []string, dir, parent string) ([]*state.CgroupSetting, error) {
	var out []*state.CgroupSetting
	for _, name := range files {
		s, _, ok := settingOf(name)
		if !ok {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // the kernel has it switched off
		}
		above := []byte(nil)
		if err == nil && (s.form == inherited || s.form == devices) {
			above, err = os.ReadFile(filepath.Join(parent, name))
		}
		if err != nil {
			return nil, err
		}
		value, changed := s.value(string(text), string(above))
		switch {
		case !changed:
		case s.form == lost:
			t.lost = append(t.lost, strings.TrimPrefix(filepath.Join(dir, name), t.dir))
		case len(value) > maxValue:
			return nil, fmt.Errorf("%s has %d bytes, the limit is %d", filepath.Join(dir, name), len(value), maxValue)
		default:
			out = append(out, &state.CgroupSetting{Name: name, Value: []byte(value)})
		}
	}
	slices.SortStableFunc(out, func(a, b *state.CgroupSetting) int { return order(a.Name) - order(b.Name) })
	return out, nil
}

func order(name string) int {
	_, n, _ := settingOf(name)
	return n
}

// creator are files that the kernel makes with each cgroup, and that nobody gives to
// another when a cgroup is delegated: they belong to whoever made it.
var creator = []string{"cgroup.events", "notify_on_release"}

// describeOwners tells whose the files are and who may use them.
func (t *tree) describeOwners(c *state.Cgroup, files []string, dir string) error {
	base := owner{}
	list := make([]*state.CgroupFile, 0, len(files)+1)
	for _, name := range append([]string{""}, files...) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			return &os.PathError{Op: "lstat", Path: filepath.Join(dir, name), Err: err}
		}
		o, err := t.owners.inside(&st)
		if err != nil {
			return err
		}
		if slices.Contains(creator, name) {
			base = o
		}
		list = append(list, &state.CgroupFile{Name: name, Uid: o.uid, Gid: o.gid, Mode: st.Mode & 0o777})
	}
	c.Uid, c.Gid = base.uid, base.gid
	for _, f := range list {
		normal, known := t.modes[f.Name]
		if f.Name == "" || (owner{f.Uid, f.Gid}) != base || known && f.Mode != normal {
			c.File = append(c.File, f)
		}
	}
	return nil
}

// owner is a user and a group.
type owner struct{ uid, gid uint32 }

// owners translates them, each once.
type owners struct {
	proc  procfs.Task
	known map[owner]owner
}

// inside is a file's owner in the container's numbers.
func (o *owners) inside(st *unix.Stat_t) (owner, error) {
	at := owner{st.Uid, st.Gid}
	if in, ok := o.known[at]; ok {
		return in, nil
	}
	uid, gid, err := target.Owner(o.proc, st)
	if err != nil {
		return owner{}, err
	}
	o.known[at] = owner{uid, gid}
	return o.known[at], nil
}

// words reads a file of words.
func words(dir, name string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	return strings.Fields(string(text)), err
}
