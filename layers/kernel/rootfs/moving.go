// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/filetree"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// movingTree is a tree that only a move takes along, opened.
type movingTree struct {
	tree *exportTree
	o    filetree.ExportOptions
	base *os.File // nil without
}

// addMoving adds the writable layer and the volumes that are copied.
func (s *Subsystem) addMoving(init procfs.Task) error {
	list, err := s.openMoving(init)
	if err != nil {
		return err
	}
	for _, m := range list {
		m.tree.base = m.base
		s.addTree(m.tree, m.o)
	}
	return nil
}

// openMoving opens all trees of a move. What cannot be carried is a *refusal.
func (s *Subsystem) openMoving(init procfs.Task) (list []movingTree, err error) {
	defer func() {
		if err != nil {
			closeMoving(list)
			list = nil
		}
	}()
	l, err := s.hostLayer()
	if err != nil {
		return nil, err
	}
	if l != nil {
		m, err := s.openLayer(init, l)
		if err != nil {
			return list, err
		}
		list = append(list, m)
	}
	v, err := sortVolumes(&s.env.Source.Files, s.env.Options)
	if err != nil {
		return list, err
	}
	if len(v.refused) > 0 {
		return list, v.refused[0]
	}
	for _, at := range v.copied {
		m, err := s.openVolume(init, at)
		if err != nil {
			return list, err
		}
		list = append(list, m)
	}
	return list, nil
}

func closeMoving(list []movingTree) {
	for _, m := range list {
		m.tree.root.Close()
		if m.base != nil {
			m.base.Close()
		}
	}
}

func (s *Subsystem) openLayer(init procfs.Task, l *layer) (movingTree, error) {
	m := movingTree{tree: &exportTree{kind: state.FileTreeKind_FILE_TREE_KIND_LAYER, path: "/"}}
	var err error
	if m.o, err = s.exportOptions(init, "/"); err != nil {
		return m, err
	}
	if m.tree.root, err = openDirectory(l.path); err != nil {
		return m, fmt.Errorf("the container's writable layer: %w", err)
	}
	if l.base != "" {
		if m.base, err = openDirectory(l.base); err != nil {
			m.tree.root.Close()
			return m, fmt.Errorf("option %s: %w", OptionBase, err)
		}
		m.o.Base = int(m.base.Fd())
	}
	m.o.Layer, m.o.Compare = l.overlay, m.base != nil
	m.o.Mapped = (&mapped{all: s.mappings(), root: int(m.tree.root.Fd()), prefix: "/"}).has
	return m, nil
}

func (s *Subsystem) openVolume(init procfs.Task, at string) (movingTree, error) {
	m := movingTree{tree: &exportTree{kind: state.FileTreeKind_FILE_TREE_KIND_VOLUME, path: at}}
	var err error
	if m.o, err = s.exportOptions(init, at); err != nil {
		return m, err
	}
	if m.tree.root, err = target.OpenMount(init.Pid(), at); err != nil {
		return m, fmt.Errorf("the volume %s: %w", at, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(m.tree.root.Fd()), &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
		m.o.Unstamped = true
	}
	m.o.Mapped = (&mapped{all: s.mappings(), root: int(m.tree.root.Fd()), prefix: strings.TrimSuffix(at, "/") + "/"}).has
	return m, nil
}

// mappings are one look for all trees.
func (s *Subsystem) mappings() *mappings {
	if s.mapped == nil {
		s.mapped = &mappings{source: s.env.Source}
	}
	return s.mapped
}

func openDirectory(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// inspectMoving names what a move could not take along.
func (s *Subsystem) inspectMoving(ctx context.Context, init procfs.Task) ([]record.Finding, error) {
	v, err := sortVolumes(&s.env.Source.Files, s.env.Options)
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for _, r := range v.refused {
		out = append(out, r.finding())
	}
	if len(out) > 0 {
		return out, nil // the trees cannot all be opened
	}
	list, err := s.openMoving(init)
	var r *refusal
	if errors.As(err, &r) {
		return []record.Finding{r.finding()}, nil
	}
	if err != nil {
		return nil, err
	}
	defer closeMoving(list)
	for _, m := range list {
		found, err := s.look(ctx, m.tree.root, m.o, func(p string) string { return path.Join(m.tree.path, p) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.tree.path, err)
		}
		out = append(out, found...)
	}
	return out, nil
}
