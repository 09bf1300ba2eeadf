// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onTmpfs is the root of a tmpfs that is mounted nowhere.
func onTmpfs(t *testing.T, options ...string) string {
	t.Helper()
	needRoot(t)
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fs)
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		must(t, unix.FsconfigSetString(fs, name, value))
	}
	must(t, unix.FsconfigCreate(fs))
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return procFD(fd) + "/."
}

// TestWhole: one of each kind of file crosses, between all kinds of file system
// that are here.
func TestWhole(t *testing.T) {
	for name, make := range map[string]func(*testing.T) string{"disk": func(t *testing.T) string { return t.TempDir() }, "tmpfs": func(t *testing.T) string { return onTmpfs(t) }} {
		t.Run(name, func(t *testing.T) {
			tr := transferOf(t, make(t), make(t), ExportOptions{}, everything, false)
			populate(t, tr.src)
			stats := tr.pass(true)
			tr.same()
			if stats.Bytes > 4<<20 {
				t.Errorf("%d bytes of content were sent", stats.Bytes)
			}
			var a, b unix.Stat_t
			must(t, unix.Stat(tr.src+"/sparse", &a))
			must(t, unix.Stat(tr.dst+"/sparse", &b))
			if b.Blocks > a.Blocks+64 {
				t.Errorf("a sparse file of %d blocks has %d now", a.Blocks, b.Blocks)
			}
		})
	}
}

// TestChanges: each change is sent by the next pass, and nothing else is.
func TestChanges(t *testing.T) {
	for _, final := range []bool{false, true} {
		t.Run(fmt.Sprint("final ", final), func(t *testing.T) { changesAreSent(t, final) })
	}
}

func changesAreSent(t *testing.T, final bool) {
	tr := newTransfer(t, ExportOptions{Workers: 2}, everything, false)
	populate(t, tr.src)
	must(t, os.Mkdir(tr.src+"/many", 0o755))
	for i := range aheadFrom { // so that it is worth while to look ahead
		write(t, fmt.Sprint(tr.src, "/many/", i), "")
	}
	age(t, tr.src)
	tr.pass(false)
	tr.same()
	if tr.pass(final); len(tr.last) != 1 {
		t.Fatalf("a pass without changes sent %v", tr.last)
	}
	for _, c := range []struct {
		name   string
		change func() error
		// the most that is sent
		entries, data, links, removals int
	}{
		{"one byte of a big file", func() error { return poke(tr.src+"/d/big", 2_000_000, "X") }, 1, 1, 0, 0},
		{"a file cut off", func() error { return os.Truncate(tr.src+"/d/big", 100_001) }, 1, 1, 0, 0},
		{"a file grown", func() error { return os.Truncate(tr.src+"/d/big", 500_000) }, 1, 1, 0, 0},
		{"a hole punched", func() error { return punch(tr.src+"/d/big", 0, 65536) }, 1, 1, 0, 0},
		{"a mode", func() error { return os.Chmod(tr.src+"/small", 0o600) }, 1, 0, 0, 0},
		{"a new name", func() error { return os.Link(tr.src+"/small", tr.src+"/third") }, 2, 0, 1, 0},
		{"a renamed file", func() error { return os.Rename(tr.src+"/d/big", tr.src+"/moved") }, 3, 0, 1, 1},
		{"a renamed directory", func() error { return os.Rename(tr.src+"/d/deep", tr.src+"/shallow") }, 5, 0, 1, 1},
		{"a removed name", func() error { return os.Remove(tr.src + "/third") }, 2, 0, 0, 1},
		{"a removed directory", func() error { return os.RemoveAll(tr.src + "/shallow") }, 1, 0, 0, 1},
		{"a file in the place of another", func() error { return os.Rename(tr.src+"/nothing", tr.src+"/fifo") }, 2, 0, 1, 1},
		{"a directory in the place of a file", func() error {
			return first(os.Remove(tr.src+"/absolute"), os.MkdirAll(tr.src+"/absolute/in", 0o755))
		}, 3, 0, 0, 0},
		{"a file in the place of a directory", func() error {
			return first(os.RemoveAll(tr.src+"/absolute"), os.WriteFile(tr.src+"/absolute", []byte("x"), 0o644))
		}, 2, 1, 0, 0},
		{"another directory of the same name", func() error {
			return first(os.MkdirAll(tr.src+"/e/old", 0o755))
		}, 3, 0, 0, 0},
		{"two files exchanged", func() error {
			return unix.Renameat2(unix.AT_FDCWD, tr.src+"/moved", unix.AT_FDCWD, tr.src+"/small", unix.RENAME_EXCHANGE)
		}, 5, 10, 2, 0},
	} {
		must(t, c.change())
		tr.pass(final)
		entries, data, links, removals := tr.items()
		if entries > c.entries || data > c.data || links > c.links || removals > c.removals {
			t.Errorf("%s: sent %d entries, %d pieces, %d links, %d removals: %v", c.name, entries, data, links, removals, short(tr))
		}
		tr.same()
		if tr.pass(final); len(tr.last) != 1 {
			t.Errorf("%s: the pass behind it sent %v", c.name, short(tr))
		}
	}
}

func short(tr *transfer) []string {
	var out []string
	for _, item := range tr.last {
		s := item.String()
		out = append(out, s[:min(len(s), 200)])
	}
	return out
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func poke(path string, at int64, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(text), at)
	return err
}

func punch(path string, at, n int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
}

// TestUnsettled: a file whose stamp is too young is compared again, and only
// what differs is sent.
func TestUnsettled(t *testing.T) {
	tr := newTransfer(t, ExportOptions{}, everything, false)
	write(t, tr.src+"/log", strings.Repeat("line\n", 100_000))
	tr.pass(false)
	// The write comes between the stamp and the copy: here the stamp is put back.
	var st unix.Stat_t
	must(t, unix.Stat(tr.src+"/log", &st))
	must(t, poke(tr.src+"/log", 70_000, "X"))
	n := tr.out.top.kids["log"]
	n.stamp.mtime.Sec, n.stamp.mtime.Nsec = st.Mtim.Sec, uint32(st.Mtim.Nsec)
	var now unix.Statx_t
	must(t, statAt(unix.AT_FDCWD, tr.src+"/log", &now))
	n.stamp = stampOf(&now)
	stats := tr.pass(false)
	tr.same()
	if stats.Bytes != pieceBytes {
		t.Errorf("%d bytes were sent", stats.Bytes)
	}
}

// TestMapped: what is written to a mapping leaves no trace in a tmpfs's stamps.
func TestMapped(t *testing.T) {
	tr := transferOf(t, onTmpfs(t), t.TempDir(), ExportOptions{Unstamped: true}, everything, false)
	f, err := os.Create(tr.src + "/shared")
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(1<<20))
	m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(m)) }()
	age(t, tr.src)
	tr.pass(false)
	m[300_000] = 7
	if stats := tr.pass(false); stats.Bytes == 0 || stats.Bytes > pieceBytes {
		t.Errorf("%d bytes were sent", stats.Bytes)
	}
	tr.same()
}

// TestTogether: several threads find what has changed of a large file, wherever
// it is.
func TestTogether(t *testing.T) {
	tr := newTransfer(t, ExportOptions{Unstamped: true, Workers: 3}, everything, false)
	write(t, tr.src+"/big", strings.Repeat("0123456789abcdef", 700_001))
	tr.pass(false)
	for _, change := range []func() error{
		func() error { return nil },
		func() error { return poke(tr.src+"/big", 0, "X") },
		func() error { return poke(tr.src+"/big", 700_001*16-1, "X") },
		func() error { return first(poke(tr.src+"/big", 5<<20, "X"), poke(tr.src+"/big", 8<<20, "Y")) },
		func() error { return punch(tr.src+"/big", 2<<20, 3<<20) },
		func() error { return os.Truncate(tr.src+"/big", 9_000_001) },
		func() error { return os.Truncate(tr.src+"/big", 20<<20) },
		func() error { return poke(tr.src+"/big", 19<<20, strings.Repeat("Z", 200_000)) },
	} {
		must(t, change())
		if stats := tr.pass(true); stats.Bytes > 400_000 {
			t.Errorf("%d bytes were sent", stats.Bytes)
		}
		tr.same()
	}
}

// TestExact: what the first pass does not name is removed, but for mount
// points.
func TestExact(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(dst+"/mounted/here", 0o755))
	must(t, os.MkdirAll(dst+"/other/deep", 0o755))
	write(t, dst+"/other/file", "x")
	write(t, dst+"/kept", "old")
	write(t, src+"/kept", "new")
	p := everything
	p.Protected = []string{"mounted/here"}
	tr := transferOf(t, src, dst, ExportOptions{}, p, true)
	tr.pass(true)
	must(t, os.RemoveAll(dst+"/mounted/here/") /* still there */)
	must(t, os.Remove(dst+"/mounted"))
	must(t, os.Chtimes(dst, mtime(t, src), mtime(t, src)))
	tr.same()
}

// TestFull: no room is named, with what is to do about it.
func TestFull(t *testing.T) {
	src, dst := t.TempDir(), onTmpfs(t, "size=1m")
	write(t, src+"/big", strings.Repeat("x", 2<<20))
	in, err := NewImporter(openDir(t, dst), everything, false)
	must(t, err)
	batch := &Batch{Push: func(b []byte) error {
		items, err := Items(b)
		must(t, err)
		return in.Apply(items...)
	}}
	_, err = NewExporter(openDir(t, src), ExportOptions{}).Pass(t.Context(), true, batch.Add)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "big") || !strings.Contains(err.Error(), "size in the container's spec") {
		t.Errorf("said %v", err)
	}
}
