// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/filetree"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// treeShift is where an entity has the tree's id, above the record's number.
const treeShift = 40

// export is what leaves this host.
type export struct {
	trees []*exportTree
	drop  bool
	// mounts counts those that were announced.
	mounts uint64
	// moving: the trees of a move were added.
	moving bool
	// mountinfo is what the kernel said of the container's mounts before they were
	// looked at last, each with an id of its own.
	mountinfo []byte
}

// exportTree is one tree on its way out.
type exportTree struct {
	id   uint64
	kind state.FileTreeKind
	path string
	root *os.File
	out  *filetree.Exporter
	sent bool // it was announced
	// mount is set for one that the container made. It may have no content: out
	// is nil then.
	mount   *state.Mount
	mounted bool // it was announced
	mountID int
	records uint64
	keep    *openFiles
	base    *os.File // that it is compared with, nil without
	huge    uint64   // the size of its pages in bytes, of a hugetlbfs
}

// inMemory: it is of the kind that addTmpfs adds, whose root is openTmpfs's.
func (t *exportTree) inMemory() bool {
	return t.kind == state.FileTreeKind_FILE_TREE_KIND_TMPFS || t.kind == state.FileTreeKind_FILE_TREE_KIND_HUGETLBFS
}

// Checkpoint exports: a pass over all trees, in each round while the container
// runs and one when it is stopped.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Process != record.Shared || step.Stage == record.StageLeft {
		return record.Progress{Done: true}, nil
	}
	pr, err := s.pass(ctx, step, out)
	if err != nil {
		s.closeExport()
		return record.Progress{}, fmt.Errorf("rootfs: %w", err)
	}
	if step.Stage == record.StageResidual {
		s.closeExport()
	}
	return pr, nil
}

// Aside reports that nothing waits for it: a pass reads files and mounts, and no other subsystem touches those.
func (s *Subsystem) Aside() bool { return true }

// pass sends what is new in all trees.
func (s *Subsystem) pass(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if err := s.findTrees(); err != nil {
		return record.Progress{}, err
	}
	pr := record.Progress{Done: true, Advanced: true}
	final := step.Stage == record.StageResidual
	for _, t := range s.out.trees {
		if err := s.pushMount(ctx, t, out); err != nil {
			return record.Progress{}, err
		}
		if t.out == nil {
			continue
		}
		stats, err := s.passTree(ctx, t, final, out)
		if err != nil {
			return record.Progress{}, fmt.Errorf("%s: %w", t.path, err)
		}
		pr.Entities += stats.Files
		pr.Bytes += stats.Bytes
	}
	s.entities.Add(pr.Entities)
	s.bytes.Add(pr.Bytes)
	if step.Stage == record.StageEarly && step.Round > 0 {
		pr.Remaining = pr.Bytes // as much may change again until the next pass
	}
	return pr, nil
}

// pushMount announces a mount that the container made.
func (s *Subsystem) pushMount(ctx context.Context, t *exportTree, out record.Sink) error {
	if t.mount == nil || t.mounted {
		return nil
	}
	t.mounted = true
	b, err := proto.Marshal(t.mount)
	if err != nil {
		return err
	}
	s.out.mounts++
	return out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: KindMount, Entity: s.out.mounts}, Payload: b})
}

func (s *Subsystem) passTree(ctx context.Context, t *exportTree, final bool, out record.Sink) (filetree.Stats, error) {
	if t.keep != nil {
		if err := t.keep.look(s.env.Source); err != nil {
			return filetree.Stats{}, err
		}
	}
	if !t.sent {
		t.sent = true
		msg := &state.FileTree{Kind: t.kind, Path: []byte(t.path), Exact: t.keep == nil && t.inMemory(), HugePageSize: t.huge}
		b, err := proto.Marshal(msg)
		if err != nil {
			return filetree.Stats{}, err
		}
		if err := out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: KindTree, Entity: t.id}, Payload: b}); err != nil {
			return filetree.Stats{}, err
		}
	}
	batch := &filetree.Batch{Push: func(b []byte) error {
		h := record.Header{Subsystem: Name, Kind: KindItems, Entity: t.id<<treeShift | t.records}
		t.records++
		return out.Push(ctx, &record.Record{Header: h, Payload: b})
	}}
	stats, err := t.out.Pass(ctx, final, batch.Add)
	if err == nil {
		err = batch.Flush()
	}
	return stats, err
}

// findTrees adds the trees that are new since the last pass.
func (s *Subsystem) findTrees() error {
	init := procfs.Host().Process(s.env.Source.Init).Still() // for one pass: its ids are read for each tree
	var err error
	if s.out.drop, err = dropTmpfs(s.env); err != nil {
		return err
	}
	raw, err := os.ReadFile(init.Path("mountinfo"))
	if err != nil {
		return err
	}
	if s.env.Source.Files.Moves && !s.out.moving {
		s.out.moving = true
		if err := s.addMoving(init); err != nil {
			return err
		}
	}
	if bytes.Equal(raw, s.out.mountinfo) {
		return nil // to compare them with the spec takes as long as the rest of a pass
	}
	mounts, err := init.Mountinfo()
	if err == nil {
		err = s.addMounts(init, mounts)
	}
	if err == nil {
		s.out.mountinfo = raw // if they have changed meanwhile, the next look shows it
	}
	return err
}

// addMounts adds memory file systems and what the container has mounted, in the
// order in which they were mounted: a mount point may be in an earlier one.
func (s *Subsystem) addMounts(init procfs.Task, mounts []procfs.Mount) error {
	host, err := target.HostDevices()
	if err != nil {
		return err
	}
	own := ownTmpfses(mounts, host)
	list, _, err := made(init, mounts, host, &s.env.Source.Files)
	if err != nil {
		return err
	}
	is := func(list []procfs.Mount, m procfs.Mount) bool {
		return slices.ContainsFunc(list, func(o procfs.Mount) bool { return o.ID == m.ID })
	}
	for _, t := range s.out.trees {
		if t.mount != nil && !is(list, procfs.Mount{ID: t.mountID}) {
			return fmt.Errorf("%s: the container has unmounted what it had mounted while it was exported: try again", t.path)
		}
	}
	for _, m := range mounts {
		if s.known(m) {
			continue
		}
		var msg *state.Mount
		if is(list, m) {
			if msg, err = describe(init.Pid(), mounts, host, &m); err != nil {
				return err
			}
		}
		switch {
		case is(own, m):
			err = s.addTmpfs(init, m, msg)
		case msg != nil:
			s.out.trees = append(s.out.trees, &exportTree{mountID: m.ID, path: m.Target, mount: msg})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Subsystem) known(m procfs.Mount) bool {
	for _, t := range s.out.trees {
		if t.mountID == m.ID && t.path == m.Target {
			return true
		}
	}
	return false
}

func (s *Subsystem) addTmpfs(init procfs.Task, m procfs.Mount, made *state.Mount) error {
	o, err := s.exportOptions(init, m.Target)
	if err != nil {
		return err
	}
	o.Unstamped = true
	root, err := s.openTmpfs(m)
	if err != nil || root == nil {
		return err
	}
	t := &exportTree{kind: state.FileTreeKind_FILE_TREE_KIND_TMPFS, path: m.Target, mountID: m.ID, root: root, mount: made}
	if m.FSType == hugeType {
		t.kind = state.FileTreeKind_FILE_TREE_KIND_HUGETLBFS
		if t.huge, err = hugePageOf(root); err != nil {
			return err
		}
	}
	if s.out.drop {
		t.keep = &openFiles{dev: m.Dev.Stat()}
		o.Keep = t.keep.has
	}
	s.addTree(t, o)
	return nil
}

func (s *Subsystem) addTree(t *exportTree, o filetree.ExportOptions) {
	t.id = uint64(len(s.out.trees) + 1)
	t.out = filetree.NewExporter(int(t.root.Fd()), o)
	s.out.trees = append(s.out.trees, t)
}

// exportOptions are those of any tree at a path of the container.
func (s *Subsystem) exportOptions(init procfs.Task, path string) (filetree.ExportOptions, error) {
	ids, err := idsOf(init)
	if err != nil {
		return filetree.ExportOptions{}, err
	}
	o := filetree.ExportOptions{IDs: ids, Workers: s.env.Workers}
	if s.env.Source.Allowed == nil {
		return o, nil
	}
	policy, err := policyOf(s.env.Source.Allowed, init)
	if err != nil {
		return filetree.ExportOptions{}, err
	}
	o.Check = func(name string, e *state.TreeEntry) *filetree.Refusal {
		if kind := e.Mode & unix.S_IFMT; kind == unix.S_IFCHR && path == "/dev" {
			return nil // of the spec, or refused by the import
		}
		return policy.Check(name, e)
	}
	return o, nil
}

func (s *Subsystem) closeExport() {
	s.closeOpened()
	for _, t := range s.out.trees {
		if t.root != nil && !t.inMemory() {
			t.root.Close()
		}
		if t.base != nil {
			t.base.Close()
		}
	}
	s.out.trees, s.out.moving, s.out.mounts, s.out.mountinfo = nil, false, 0, nil
}
