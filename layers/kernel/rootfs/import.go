// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/filetree"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// maxTrees bounds the trees of an image: the kernel's default for mounts of a
// namespace (fs.mount-max) is far above what a container has.
const maxTrees = 4096

// imports is what arrives on this host. Records arrive one after the other.
type imports struct {
	trees map[uint64]*importTree
}

// importTree is one tree under construction.
type importTree struct {
	path    string
	root    *os.File
	in      *filetree.Importer
	write   *taskWriter
	records uint64
}

var errImage = errors.New("the image is not valid")

// Restart imports: records are applied as they arrive.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Stage == record.StageBuild && step.Process == record.Shared:
		err = s.closeImport()
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("rootfs: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

func (s *Subsystem) receive(r *record.Record) error {
	if r.Process != record.Shared {
		return fmt.Errorf("%w: %s: this kind does not belong to process %d", errImage, r.Header, r.Process)
	}
	switch r.Kind {
	case KindTree:
		return s.receiveTree(r)
	case KindItems:
		return s.receiveItems(r)
	}
	return fmt.Errorf("%w: %s: kind %d is not known", errImage, r.Header, r.Kind)
}

// receiveTree finds the place where the tree is to be made.
func (s *Subsystem) receiveTree(r *record.Record) error {
	msg := &state.FileTree{}
	if err := proto.Unmarshal(r.Payload, msg); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, r.Header, err)
	}
	path := string(msg.Path)
	switch {
	case r.Entity == 0 || r.Entity > maxTrees || s.in.trees[r.Entity] != nil:
		return fmt.Errorf("%w: %s: trees are numbered from 1 to %d", errImage, r.Header, maxTrees)
	case msg.Kind != state.FileTreeKind_FILE_TREE_KIND_TMPFS:
		return fmt.Errorf("%w: %s: trees of kind %s are not known", errImage, r.Header, msg.Kind)
	}
	if err := target.CheckPath("tree", path); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, r.Header, err)
	}
	t, err := s.openTmpfs(path, msg.Exact)
	if err != nil {
		return fmt.Errorf("the memory file system %s: %w", path, err)
	}
	if s.in.trees == nil {
		s.in.trees = map[uint64]*importTree{}
	}
	s.in.trees[r.Entity] = t
	return nil
}

// openTmpfs opens a memory file system that only the new container has. A forged
// image might name another one: what is on the host's is not the image's to
// change.
func (s *Subsystem) openTmpfs(path string, exact bool) (*importTree, error) {
	frame := s.env.Frame
	init := procfs.Host().Process(frame.Init)
	mounts, err := init.Mountinfo()
	if err != nil {
		return nil, err
	}
	list, err := ownTmpfses(mounts)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(m procfs.Mount) bool { return m.Target == path })
	if i < 0 {
		return nil, errors.New("the container's spec mounts none there")
	}
	policy, err := policyOf(&frame.Allowed, init)
	if err != nil {
		return nil, err
	}
	t := &importTree{path: path, write: &taskWriter{frame: frame}}
	policy.Protected, policy.Write = below(mounts, path), t.write
	if t.root, err = target.OpenMount(frame.Init, path); err != nil {
		return nil, err
	}
	if err = isMount(t.root, list[i]); err == nil {
		t.in, err = filetree.NewImporter(int(t.root.Fd()), policy, exact)
	}
	if err != nil {
		t.root.Close()
		return nil, err
	}
	return t, nil
}

func (s *Subsystem) receiveItems(r *record.Record) error {
	t := s.in.trees[r.Entity>>treeShift]
	if t == nil || r.Entity&(1<<treeShift-1) != t.records {
		return fmt.Errorf("%w: %s: records of a tree come in order, behind the tree", errImage, r.Header)
	}
	t.records++
	items, err := filetree.Items(r.Payload)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, r.Header, err)
	}
	if err := t.in.Apply(items...); err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	for _, item := range items {
		if d := item.GetData(); d != nil {
			s.bytes.Add(uint64(len(d.Data)))
		}
	}
	s.entities.Add(uint64(len(items)))
	return nil
}

// closeImport ends the import. A tree whose last pass did not come to its end
// was cut off.
func (s *Subsystem) closeImport() error {
	var errs []error
	for _, t := range s.in.trees {
		if err := t.in.Close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.path, err))
		}
		errs = append(errs, t.root.Close())
	}
	s.in.trees = nil
	return errors.Join(errs...)
}
