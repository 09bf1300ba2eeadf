// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
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

// maxTrees bounds the trees of an image: the kernel's default for mounts of a
// namespace (fs.mount-max) is far above what a container has.
const maxTrees = 4096

// imports is what arrives on this host. Records arrive one after the other.
type imports struct {
	trees map[uint64]*importTree
	// mounts counts those that were made, remounts get their options yet.
	mounts   uint64
	remounts []*state.Mount
}

// importTree is one tree under construction.
type importTree struct {
	path    string
	root    *os.File
	in      *filetree.Importer
	records uint64
	// disk: what is written has to reach one. syncing ends when it has.
	disk    bool
	syncing chan struct{}
	// marked: the root has a mark until the tree is whole.
	marked bool
}

var errImage = errors.New("the image is not valid")

// Restart imports: records are applied as they arrive.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Stage == record.StageBuild && step.Process == record.Shared:
		err = errors.Join(s.closeImport(), s.remount())
	case step.Stage == record.StageResume && step.Process == record.Shared:
		s.unmark()
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
	case KindMount:
		return s.receiveMount(r)
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
	}
	if err := target.CheckPath("tree", path); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, r.Header, err)
	}
	t, err := s.openTree(msg, path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	t.path = path
	if s.in.trees == nil {
		s.in.trees = map[uint64]*importTree{}
	}
	s.in.trees[r.Entity] = t
	return nil
}

// openTree opens the place of a tree. An image may name any: only those of the
// live spec, and of what this host was told, are opened.
func (s *Subsystem) openTree(msg *state.FileTree, path string) (*importTree, error) {
	init := procfs.Host().Process(s.env.Frame.Init)
	mounts, err := init.Mountinfo()
	if err != nil {
		return nil, err
	}
	policy, err := policyOf(&s.env.Frame.Allowed, init)
	if err != nil {
		return nil, err
	}
	policy.Protected = below(mounts, path)
	switch {
	case msg.HugePageSize > 0 != (msg.Kind == state.FileTreeKind_FILE_TREE_KIND_HUGETLBFS):
		return nil, fmt.Errorf("%w: a tree of kind %s with pages of %d bytes", errImage, msg.Kind, msg.HugePageSize)
	case msg.Kind == state.FileTreeKind_FILE_TREE_KIND_TMPFS, msg.Kind == state.FileTreeKind_FILE_TREE_KIND_HUGETLBFS:
		return s.tmpfsTree(path, msg, mounts, policy)
	case !s.env.Frame.Files.Moves:
		return nil, errors.New("files of a disk come with a container that moves from another host only")
	case msg.Kind == state.FileTreeKind_FILE_TREE_KIND_LAYER:
		return s.layerTree(path, policy)
	case msg.Kind == state.FileTreeKind_FILE_TREE_KIND_VOLUME:
		return s.volumeTree(path, policy)
	}
	return nil, fmt.Errorf("%w: trees of kind %s are not known", errImage, msg.Kind)
}

// tmpfsTree opens a memory file system that only the new container has: what is
// on the host's is not the image's to change.
func (s *Subsystem) tmpfsTree(path string, msg *state.FileTree, mounts []procfs.Mount, policy filetree.Policy) (*importTree, error) {
	host, err := target.HostDevices()
	if err != nil {
		return nil, err
	}
	list := ownTmpfses(mounts, host)
	huge := msg.HugePageSize
	i := slices.IndexFunc(list, func(m procfs.Mount) bool { return m.Target == path && (m.FSType == hugeType) == (huge > 0) })
	switch {
	case i < 0 && huge > 0:
		return nil, errors.New("the container's spec mounts no hugetlbfs there")
	case i < 0:
		return nil, errors.New("the container's spec mounts no memory file system there")
	case huge > 0:
		policy.Write = &hugeWriter{frame: s.env.Frame, page: huge}
	default:
		policy.Write = &taskWriter{frame: s.env.Frame}
	}
	root, err := target.OpenMount(s.env.Frame.Init, path)
	if err != nil {
		return nil, err
	}
	if err := isMount(root, list[i]); err != nil {
		root.Close()
		return nil, err
	}
	if huge > 0 {
		if err := hasHugePages(root, huge); err != nil {
			root.Close()
			return nil, err
		}
	}
	return newImportTree(root, policy, msg.Exact)
}

// layerTree opens the container's root as the host has it mounted, where nothing
// of the container's own mounts hides anything. It may give files to anybody, as
// the layers of an image do.
func (s *Subsystem) layerTree(path string, policy filetree.Policy) (*importTree, error) {
	if path != "/" || s.env.Frame.Files.Root == "" {
		return nil, fmt.Errorf("%w: a writable layer is at /, and the host has it mounted", errImage)
	}
	policy.Owner = nil
	root, err := openDirectory(s.env.Frame.Files.Root)
	if err != nil {
		return nil, err
	}
	return newImportTree(root, policy, false)
}

// volumeTree opens a volume that this host was told to fill. Files may belong to
// anybody, but give nobody rights that the container could not give.
func (s *Subsystem) volumeTree(path string, policy filetree.Policy) (*importTree, error) {
	v, err := sortVolumes(&s.env.Frame.Files, s.env.Options)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(v.copied, path) {
		return nil, fmt.Errorf("this host was not told to fill the volume (%s)", OptionCopy)
	}
	policy.Foreign = true
	root, err := target.OpenMount(s.env.Frame.Init, path)
	if err != nil {
		return nil, err
	}
	replace := s.env.Options[OptionContent] == ContentReplace
	if err := takes(root, replace); err != nil {
		root.Close()
		return nil, err
	}
	t, err := newImportTree(root, policy, true)
	if err == nil {
		t.marked = true
	}
	return t, err
}

// newImportTree takes over root.
func newImportTree(root *os.File, policy filetree.Policy, exact bool) (*importTree, error) {
	in, err := filetree.NewImporter(int(root.Fd()), policy, exact)
	if err != nil {
		root.Close()
		return nil, err
	}
	return &importTree{root: root, in: in, disk: policy.Write == nil}, nil
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
		if e := item.GetEnd(); e != nil && t.disk {
			t.sync(e.Final)
		}
	}
	s.entities.Add(uint64(len(items)))
	return nil
}

// sync brings a pass to the disk, beside the passes that follow. The container
// may have waited for its files to get there (fsync(2)), and its host forgets
// them. What the final pass brought is little, and nobody waits for it.
func (t *importTree) sync(final bool) {
	if t.syncing != nil && !final {
		<-t.syncing
	}
	done := make(chan struct{})
	if !final {
		t.syncing = done
	}
	// The descriptor may be closed before the kernel comes to it.
	fd, err := unix.FcntlInt(t.root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		close(done)
		return
	}
	go func() {
		defer close(done)
		defer unix.Close(fd)
		_ = unix.Syncfs(fd) // a disk that fails tells those who use it
	}()
}

// closeImport ends the import. A tree whose last pass did not come to its end
// was cut off.
func (s *Subsystem) closeImport() error {
	var errs []error
	for _, t := range s.in.trees {
		if err := t.in.Close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.path, err))
		}
		if !t.marked {
			errs = append(errs, t.root.Close())
		}
	}
	return errors.Join(errs...)
}

// unmark comes last: volumes are whole, and no move that fails is to replace
// them.
func (s *Subsystem) unmark() {
	for _, t := range s.in.trees {
		if t.marked {
			unmark(t.root)
			t.root.Close()
		}
	}
	s.in.trees = nil
}
