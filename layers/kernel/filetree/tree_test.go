// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners, device nodes, mounts")
	}
}

// transfer is a tree on its way, with what crosses encoded as in records.
type transfer struct {
	t        testing.TB
	src, dst string
	out      *Exporter
	in       *Importer
	last     []*state.TreeItem // of the last pass
}

// everything allows what root may do.
var everything = Policy{Trusted: true, Flags: true, Device: func(uint32, uint64) bool { return true }}

func openDir(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func newTransfer(t testing.TB, o ExportOptions, p Policy, exact bool) *transfer {
	t.Helper()
	return transferOf(t, t.TempDir(), t.TempDir(), o, p, exact)
}

func transferOf(t testing.TB, src, dst string, o ExportOptions, p Policy, exact bool) *transfer {
	t.Helper()
	in, err := NewImporter(openDir(t, dst), p, exact)
	must(t, err)
	tr := &transfer{t: t, src: src, dst: dst, out: NewExporter(openDir(t, src), o), in: in}
	t.Cleanup(func() { _ = in.Close() })
	return tr
}

// pass exports and imports once.
func (tr *transfer) pass(final bool) Stats {
	tr.t.Helper()
	tr.last = nil
	batch := &Batch{Push: func(b []byte) error {
		items, err := Items(b)
		if err != nil {
			return err
		}
		tr.last = append(tr.last, items...)
		return tr.in.Apply(items...)
	}}
	stats, err := tr.out.Pass(context.Background(), final, batch.Add)
	must(tr.t, err)
	must(tr.t, batch.Flush())
	return stats
}

// items counts the kinds of the last pass.
func (tr *transfer) items() (entries, data, links, removals int) {
	for _, item := range tr.last {
		switch item.Of.(type) {
		case *state.TreeItem_Entry:
			entries++
		case *state.TreeItem_Data, *state.TreeItem_Hole:
			data++
		case *state.TreeItem_Link:
			links++
		case *state.TreeItem_Removal:
			removals++
		}
	}
	return entries, data, links, removals
}

// same compares both sides.
func (tr *transfer) same() {
	tr.t.Helper()
	want, got := allOf(tr.t, tr.src), allOf(tr.t, tr.dst)
	if !slices.Equal(want, got) {
		tr.t.Fatalf("the trees differ:\n%s", difference(want, got))
	}
}

func difference(want, got []string) string {
	var b strings.Builder
	for _, s := range want {
		if !slices.Contains(got, s) {
			fmt.Fprintln(&b, "-", s)
		}
	}
	for _, s := range got {
		if !slices.Contains(want, s) {
			fmt.Fprintln(&b, "+", s)
		}
	}
	return b.String()
}

// allOf says everything about a tree that should travel.
func allOf(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	first := map[uint64]string{}
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %#o %d:%d %d.%09d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += " = " + first[st.Ino]
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256(b))
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		attrs, err := attributesOf(path)
		if err != nil {
			return err
		}
		sorted, err := sortedAttributes(attrs, IDs{})
		if err != nil {
			return err
		}
		for _, a := range sorted {
			line += fmt.Sprintf(" %s=%x", a.Name, a.Value)
		}
		out = append(out, line)
		return nil
	}))
	return out
}

func write(t testing.TB, path string, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// age makes every file of a tree older than settleTime.
func age(t testing.TB, root string) {
	t.Helper()
	// The change time cannot be set: what decides is our clock.
	_ = root
	shift = -time.Minute
	t.Cleanup(func() { shift = 0 })
}

// populate makes one of each.
func populate(t testing.TB, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir+"/d/deep/er", 0o750))
	must(t, os.Mkdir(dir+"/empty", 0o711))
	write(t, dir+"/small", "small")
	write(t, dir+"/nothing", "")
	write(t, dir+"/d/big", strings.Repeat("0123456789abcdef", 200_000))
	write(t, dir+"/d/deep/er/x\xff\n name", "bytes")
	must(t, os.Link(dir+"/small", dir+"/d/small-again"))
	must(t, os.Symlink("../small", dir+"/d/link"))
	must(t, os.Symlink("/etc/passwd", dir+"/absolute"))
	must(t, os.Symlink("nowhere", dir+"/dangling"))
	must(t, unix.Mkfifo(dir+"/fifo", 0o620))
	must(t, os.Chmod(dir+"/d/big", 0o4755))
	must(t, os.Chmod(dir+"/empty", 0o3777|os.ModeSticky|os.ModeSetgid))
	f, err := os.Create(dir + "/sparse")
	must(t, err)
	must(t, f.Truncate(32<<20))
	for _, at := range []int64{0, 5 << 20, 32<<20 - 3} {
		_, err = f.WriteAt([]byte("abc"), at)
		must(t, err)
	}
	must(t, f.Close())
	must(t, os.Chtimes(dir+"/small", time.Unix(1, 5), time.Unix(1234567890, 123456789)))
	must(t, os.Chtimes(dir+"/d", time.Unix(1, 5), time.Unix(1234567890, 987654321)))
	if err := unix.Setxattr(dir+"/small", "user.colour", []byte("blue"), 0); err != nil {
		t.Logf("no user attributes on this file system: %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	must(t, unix.Mknod(dir+"/socket", unix.S_IFSOCK|0o600, 0))
	must(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Lchown(dir+"/d/link", 12, 13))
	must(t, os.Chown(dir+"/d/deep", 1000, 1001))
	must(t, os.Chown(dir+"/nothing", 77, 78))
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(dir+"/nothing", attrCapability, capability, 0))
	acl := []byte{2, 0, 0, 0,
		1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
		16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}
	if err := unix.Setxattr(dir+"/d/deep", attrDefaultACL, acl, 0); err != nil {
		t.Logf("no access control lists on this file system: %v", err)
		return
	}
	must(t, unix.Setxattr(dir+"/d/big", attrACL, acl, 0))
}

func mtime(t testing.TB, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.ModTime()
}
