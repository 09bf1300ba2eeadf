// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"context"
	"fmt"
	"hash/maphash"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// maxNodes bounds the files of a tree: what is remembered of each takes some
// 200 bytes.
const maxNodes = 8 << 20

// ExportOptions say what is special about a tree.
type ExportOptions struct {
	// IDs of the container's user namespace.
	IDs IDs
	// Layer: the tree is the upper directory of an overlay; see layer.go.
	Layer bool
	// Compare: the other side has what the directory that is open as Base has.
	Compare bool
	Base    int
	// Unstamped: files can be written without a new time stamp, as mapped ones
	// of a tmpfs are. All contents are compared in every pass.
	Unstamped bool
	// Mapped tells, if it is set, which files are mapped for writing at the
	// moment: their contents are compared in the next pass. It is asked before
	// a file is read.
	Mapped func(ino uint64) bool
	// Keep tells, if it is set, which regular files are carried at all.
	Keep func(path string, st *unix.Statx_t) bool
	// Check, if it is set, refuses what the import could not make; see
	// Policy.Check.
	Check func(path string, e *state.TreeEntry) *Refusal
	// Refuse is told of what cannot be carried; its error ends the pass. nil
	// returns the refusal. If it returns none, the file is left out.
	Refuse func(*Refusal) error
	// Workers is how many threads may look at files at the same time, in the final
	// pass.
	Workers int
	// Look: nothing is read and nothing sent, but refusals are found.
	Look bool
}

// Stats is what a pass did.
type Stats struct {
	// Files looked at, Sent of them with something to send, Bytes of content.
	Files, Sent, Bytes uint64
}

// Exporter sends one tree in passes. It is used by one goroutine at a time.
type Exporter struct {
	root int
	o    ExportOptions
	seed maphash.Seed

	top    *node
	inodes map[uint64]*node // of what is no directory
	count  int
	passes uint32
}

// NewExporter is for the tree whose root directory is open as root, which stays
// the caller's.
func NewExporter(root int, o ExportOptions) *Exporter {
	if o.Refuse == nil {
		o.Refuse = func(r *Refusal) error { return r }
	}
	return &Exporter{root: root, o: o, seed: maphash.MakeSeed(), inodes: map[uint64]*node{}}
}

// Emit takes an item. It has consumed it on return.
type Emit func(*state.TreeItem) error

// Pass sends what is new since the last one. The final pass is made while
// nothing changes: a file that does is an error then, as somebody outside of the
// container writes to it. No pass follows it.
//
// An error leaves the exporter unusable.
func (e *Exporter) Pass(ctx context.Context, final bool, emit Emit) (Stats, error) {
	e.passes++
	w := &walk{Exporter: e, ctx: ctx, final: final, emit: emit}
	if e.o.Look {
		w.emit = func(*state.TreeItem) error { return nil }
	}
	if err := w.tree(); err != nil {
		return w.stats, fmt.Errorf("pass %d: %w", e.passes, err)
	}
	return w.stats, nil
}

// walk is one pass.
type walk struct {
	*Exporter
	ctx   context.Context
	final bool
	emit  Emit
	stats Stats
	mount uint64 // id of the root's mount
	// removals come last, so that files that were renamed can be linked first.
	removals []removal
	buf      []byte
	// sentLast is the file whose entry was sent last.
	sentLast *node
	// ahead is what was found out about directories ahead of the walk.
	ahead map[*node]*listing
}

type removal struct {
	path   string
	parent *node
	name   string
}

func (w *walk) tree() error {
	var st unix.Statx_t
	if err := statAt(w.root, "", &st); err != nil {
		return err
	}
	if fileType(&st) != unix.S_IFDIR {
		return &os.PathError{Op: "walk", Path: rootPath, Err: unix.ENOTDIR}
	}
	w.mount = st.Mnt_id
	fd, err := unix.Openat(w.root, ".", dirFlags, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: rootPath, Err: err}
	}
	if w.top == nil {
		w.top = &node{ino: st.Ino, mode: unix.S_IFDIR, kids: map[string]*node{}, base: w.o.Compare}
		w.count++
	}
	w.lookAhead()
	if err := w.directory(os.NewFile(uintptr(fd), rootPath), rootPath, &st, w.top, false); err != nil {
		return err
	}
	for _, r := range w.removals {
		if err := w.send(&state.TreeItem{Of: &state.TreeItem_Removal{Removal: &state.TreeRemoval{Path: []byte(r.path)}}}); err != nil {
			return err
		}
		if kid := r.parent.kids[r.name]; kid != nil && !kid.whiteout {
			delete(r.parent.kids, r.name)
			w.forget(kid, r.path)
		}
	}
	return w.send(&state.TreeItem{Of: &state.TreeItem_End{End: &state.TreePassEnd{Pass: w.passes, Final: w.final}}})
}

func (w *walk) send(item *state.TreeItem) error {
	w.stats.Sent++
	return w.emit(item)
}

// refuse reports a file; without an error it is left out.
func (w *walk) refuse(path, why, remedy string) error {
	return w.o.Refuse(&Refusal{Path: path, Why: why, Remedy: remedy})
}
