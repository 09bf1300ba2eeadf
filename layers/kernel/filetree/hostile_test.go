// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

var epoch = &state.FileTime{}

func entry(path string, mode uint32) *state.TreeEntry {
	return &state.TreeEntry{Path: []byte(path), Mode: mode, Atime: epoch, Mtime: epoch, Fresh: true}
}

func entryItem(e *state.TreeEntry) *state.TreeItem {
	return &state.TreeItem{Of: &state.TreeItem_Entry{Entry: e}}
}

// hostile is a tree with a secret beside it.
type hostile struct {
	t           *testing.T
	top, secret string
	im          *Importer
}

func newHostile(t *testing.T, p Policy) *hostile {
	t.Helper()
	dir := t.TempDir()
	h := &hostile{t: t, top: dir + "/tree", secret: dir + "/secret"}
	must(t, os.Mkdir(h.top, 0o755))
	write(t, h.secret, "secret")
	var err error
	h.im, err = NewImporter(openDir(t, h.top), p, false)
	must(t, err)
	return h
}

func regular(path string) *state.TreeItem {
	return entryItem(entry(path, unix.S_IFREG|0o644))
}

// refused applies items of which the last must fail.
func (h *hostile) refused(name string, items ...*state.TreeItem) {
	h.t.Helper()
	for i, item := range items {
		err := h.im.Apply(item)
		if last := i == len(items)-1; last && err == nil {
			h.t.Errorf("%s: accepted", name)
		} else if !last {
			must(h.t, err)
		}
	}
}

// unharmed looks at what is beside the tree.
func (h *hostile) unharmed() {
	h.t.Helper()
	list, err := os.ReadDir(filepath.Dir(h.top))
	must(h.t, err)
	b, err := os.ReadFile(h.secret)
	must(h.t, err)
	var st unix.Stat_t
	must(h.t, unix.Stat(h.secret, &st))
	if len(list) != 2 || string(b) != "secret" || st.Nlink != 1 || st.Mode&0o7777 != 0o644 {
		h.t.Errorf("beside the tree are %v, the secret is %q, mode %o, %d links", list, b, st.Mode, st.Nlink)
	}
}

// TestHostilePaths: no item leads out of the tree.
func TestHostilePaths(t *testing.T) {
	h := newHostile(t, Policy{})
	must(t, os.Symlink("..", h.top+"/up"))
	must(t, os.Symlink("/", h.top+"/root"))
	must(t, os.Symlink("../secret", h.top+"/there"))
	for _, path := range []string{
		"", "/", "/etc/x", "..", "../secret", "a/../../secret", "./x", "x/.", "x/", "a//b", "a\x00b",
		"up/secret", "root/tmp/x", "missing/x", strings.Repeat("a", 256), strings.Repeat("a/", 2100) + "x",
	} {
		h.refused("file "+path, regular(path))
		h.refused("directory "+path, entryItem(entry(path, unix.S_IFDIR|0o755)))
		h.refused("link "+path, &state.TreeItem{Of: &state.TreeItem_Link{Link: &state.TreeLink{Path: []byte("new"), To: []byte(path)}}})
		h.refused("link as "+path, &state.TreeItem{Of: &state.TreeItem_Link{Link: &state.TreeLink{Path: []byte(path), To: []byte("there")}}})
		if path != "missing/x" { // what is not there can be removed
			err := h.im.Apply(&state.TreeItem{Of: &state.TreeItem_Removal{Removal: &state.TreeRemoval{Path: []byte(path)}}})
			if err == nil && !strings.HasPrefix(path, "up/") && !strings.HasPrefix(path, "root/") {
				t.Errorf("removal of %.50q: accepted", path)
			}
		}
		h.unharmed()
	}
	// A link's end is replaced, never followed.
	must(t, h.im.Apply(regular("there"), &state.TreeItem{Of: &state.TreeItem_Removal{Removal: &state.TreeRemoval{Path: []byte("up")}}}))
	h.unharmed()
	update := entry("root", unix.S_IFREG|0o777)
	update.Fresh = false
	h.refused("a change through a link", entryItem(update))
	h.unharmed()
}

// TestHostileItems: what no exporter sends is refused.
func TestHostileItems(t *testing.T) {
	h := newHostile(t, Policy{})
	edit := func(mode uint32, fn func(*state.TreeEntry)) *state.TreeItem {
		e := entry("x", mode)
		fn(e)
		return entryItem(e)
	}
	data := func(at int64, n int) *state.TreeItem {
		return &state.TreeItem{Of: &state.TreeItem_Data{Data: &state.TreeData{Offset: at, Data: make([]byte, n)}}}
	}
	hole := func(at, n int64) *state.TreeItem {
		return &state.TreeItem{Of: &state.TreeItem_Hole{Hole: &state.TreeHole{Offset: at, Length: n}}}
	}
	sized := edit(unix.S_IFREG, func(e *state.TreeEntry) { e.Size = 100 })
	const huge = 1<<63 - 1
	for name, items := range map[string][]*state.TreeItem{
		"nothing":              {{}},
		"content of nothing":   {data(0, 1)},
		"content behind a dir": {entryItem(entry("d", unix.S_IFDIR)), data(0, 1)},
		"content beyond":       {sized, data(100, 1)},
		"content before":       {sized, data(-1, 1)},
		"content at the end":   {sized, data(huge, 100)},
		"no content":           {sized, data(0, 0)},
		"a hole beyond":        {sized, hole(1, 100)},
		"a hole of nothing":    {sized, hole(1, 0)},
		"an endless hole":      {sized, hole(1, huge)},
		"negative size":        {edit(unix.S_IFREG, func(e *state.TreeEntry) { e.Size = -1 })},
		"size of a directory":  {edit(unix.S_IFDIR, func(e *state.TreeEntry) { e.Size = 1 })},
		"no type":              {edit(0, func(*state.TreeEntry) {})},
		"unknown type":         {edit(0o170000, func(*state.TreeEntry) {})},
		"high bits":            {edit(unix.S_IFREG|1<<20, func(*state.TreeEntry) {})},
		"no times":             {edit(unix.S_IFREG, func(e *state.TreeEntry) { e.Mtime = nil })},
		"nanoseconds":          {edit(unix.S_IFREG, func(e *state.TreeEntry) { e.Mtime = &state.FileTime{Nanoseconds: 1e9} })},
		"unknown flags":        {edit(unix.S_IFREG, func(e *state.TreeEntry) { e.Flags = 1 << 30 })},
		"empty link":           {edit(unix.S_IFLNK, func(*state.TreeEntry) {})},
		"long link":            {edit(unix.S_IFLNK, func(e *state.TreeEntry) { e.Target = make([]byte, 5000) })},
		"a label": {edit(unix.S_IFREG, func(e *state.TreeEntry) {
			e.Attribute = []*state.FileAttribute{{Name: []byte("security.selinux"), Value: []byte("x")}}
		})},
		"an overlay's mark": {edit(unix.S_IFDIR, func(e *state.TreeEntry) {
			e.Attribute = []*state.FileAttribute{{Name: []byte("trusted.overlay.redirect"), Value: []byte("/etc")}}
		})},
		"a change of nothing":   {edit(unix.S_IFREG, func(e *state.TreeEntry) { e.Path, e.Fresh = []byte("none"), false })},
		"the removal of all":    {{Of: &state.TreeItem_Removal{Removal: &state.TreeRemoval{Path: []byte(".")}}}},
		"the root as a file":    {edit(unix.S_IFREG, func(e *state.TreeEntry) { e.Path = []byte(".") })},
		"a pass of the future":  {{Of: &state.TreeItem_End{End: &state.TreePassEnd{Pass: 7}}}},
		"a link to a directory": {entryItem(entry("d2", unix.S_IFDIR)), {Of: &state.TreeItem_Link{Link: &state.TreeLink{Path: []byte("y"), To: []byte("d2")}}}},
	} {
		h.im.current = nil
		h.refused(name, items...)
		h.unharmed()
	}
}

// TestPolicy: an image gets no more than the live spec gives.
func TestPolicy(t *testing.T) {
	needRoot(t)
	uid := uint32(1000)
	h := newHostile(t, Policy{Owner: &uid, Groups: []uint32{100, 101}})
	device := entry("device", unix.S_IFCHR|0o666)
	device.Device = unix.Mkdev(1, 1) // mem
	h.refused("a device", entryItem(device))
	disk := entry("disk", unix.S_IFBLK|0o666)
	h.refused("a disk", entryItem(disk))
	trusted := entry("trusted", unix.S_IFREG)
	trusted.Attribute = []*state.FileAttribute{{Name: []byte("trusted.x"), Value: []byte("x")}}
	h.refused("a trusted attribute", entryItem(trusted), regular("other"))
	frozen := entry("frozen", unix.S_IFREG)
	frozen.Flags = flagImmutable
	h.refused("an immutable file", entryItem(frozen), regular("other"))

	root := entry("su", unix.S_IFREG|0o6755)
	root.Attribute = []*state.FileAttribute{{Name: []byte(attrCapability), Value: []byte{1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}}
	own := entry("own", unix.S_IFREG|0o6755)
	own.Uid, own.Gid = 1000, 101
	must(t, h.im.Apply(entryItem(root), entryItem(own), regular("other")))
	for name, want := range map[string][3]uint32{"su": {1000, 100, 0o755}, "own": {1000, 101, 0o6755}} {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(h.top, name), &st))
		if got := [3]uint32{st.Uid, st.Gid, st.Mode & 0o7777}; got != want {
			t.Errorf("%s: owner, group and mode %o, want %o", name, got, want)
		}
	}
	if names, err := listAttributes(h.top + "/su"); err != nil || len(names) > 0 {
		t.Errorf("su has %v: %v", names, err)
	}
}

// TestSwappedDirectories: somebody who exchanges a directory for a link while
// items are applied moves nothing out of the tree.
func TestSwappedDirectories(t *testing.T) {
	h := newHostile(t, Policy{})
	must(t, os.Mkdir(h.top+"/d", 0o755))
	must(t, os.Symlink("..", h.top+"/l"))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, h.top+"/d", unix.AT_FDCWD, h.top+"/l", unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 3000 {
		h.im.moved() // no open directory is kept
		_ = h.im.Apply(regular("d/secret"))
		_ = h.im.Apply(&state.TreeItem{Of: &state.TreeItem_Removal{Removal: &state.TreeRemoval{Path: []byte("d/tree")}}})
		_ = h.im.Apply(&state.TreeItem{Of: &state.TreeItem_Link{Link: &state.TreeLink{Path: []byte("hard"), To: []byte("d/secret")}}})
	}
	close(stop)
	<-done
	if b, err := os.ReadFile(h.secret); err != nil || string(b) != "secret" {
		t.Errorf("the secret is %q: %v", b, err)
	}
	var st unix.Stat_t
	must(t, unix.Stat(h.secret, &st))
	if st.Nlink != 1 {
		t.Errorf("the secret has %d links", st.Nlink)
	}
}

// FuzzItems: no bytes crash the decoder or the importer.
func FuzzItems(f *testing.F) {
	b := &Batch{Push: func(p []byte) error { f.Add(append([]byte(nil), p...)); return nil }}
	must(f, b.Add(regular("x")))
	must(f, b.Add(&state.TreeItem{Of: &state.TreeItem_Data{Data: &state.TreeData{Data: []byte("x")}}}))
	must(f, b.Add(&state.TreeItem{Of: &state.TreeItem_End{End: &state.TreePassEnd{Pass: 1}}}))
	must(f, b.Flush())
	dir := f.TempDir()
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(f, err)
	f.Cleanup(func() { unix.Close(root) })
	f.Fuzz(func(t *testing.T, payload []byte) {
		items, err := Items(payload)
		if err != nil {
			return
		}
		im, err := NewImporter(root, Policy{}, true)
		must(t, err)
		_ = im.Apply(items...)
		_ = im.Close()
	})
}
