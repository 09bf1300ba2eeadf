// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWalk: each kind of entry of a real tmpfs is told or left out.
func TestWalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	top := t.TempDir()
	must(t, unix.Mount("tmpfs", top, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(top, unix.MNT_DETACH)) })
	for _, dir := range []string{"empty", "full/deep", "other"} {
		must(t, os.MkdirAll(filepath.Join(top, dir), 0o755))
	}
	must(t, unix.Mount("tmpfs", filepath.Join(top, "other"), "tmpfs", 0, "size=1m"))
	for _, file := range []string{"open", "full/deep/kept", "other/not-ours"} {
		must(t, os.WriteFile(filepath.Join(top, file), nil, 0o600))
	}
	must(t, os.Symlink("/nowhere", filepath.Join(top, "link")))
	must(t, unix.Mkfifo(filepath.Join(top, "fifo"), 0o600))
	must(t, unix.Mknod(filepath.Join(top, "socket"), unix.S_IFSOCK|0o600, 0))
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(top, "open"), &st))

	w := walk{open: map[fileID]bool{{st.Dev, st.Ino}: true}}
	root, err := os.Open("/")
	must(t, err)
	defer root.Close()
	must(t, w.mount(root, mountAt(t, top)))
	slices.Sort(w.names)
	want := []string{top + "/empty", top + "/fifo", top + "/full/deep/kept", top + "/link"}
	if !slices.Equal(w.names, want) || w.more != 0 {
		t.Errorf("found %v and %d more, want %v", w.names, w.more, want)
	}
	for i := range 3 * maxNames {
		must(t, os.WriteFile(filepath.Join(top, fmt.Sprint("more", i)), nil, 0o600))
	}
	w = walk{}
	must(t, w.mount(root, mountAt(t, top)))
	if len(w.names) != maxNames || w.more != 3*maxNames+5-maxNames {
		t.Errorf("found %v and %d more", w.names, w.more)
	}
	if f := finding(mountAt(t, top), &w, true); !f.Warning || !strings.Contains(f.What, "and 13 more") {
		t.Errorf("%+v", f)
	}
}

func mountAt(t *testing.T, path string) procfs.Mount {
	t.Helper()
	list, err := procfs.Host().Process(os.Getpid()).Mountinfo()
	must(t, err)
	i := slices.IndexFunc(list, func(m procfs.Mount) bool { return m.Target == path })
	if i < 0 {
		t.Fatalf("nothing is mounted at %s", path)
	}
	return list[i]
}

func TestOption(t *testing.T) {
	for value, want := range map[string]bool{"": false, TmpfsRefuse: false, TmpfsDrop: true} {
		if got, err := dropTmpfs(target.Env{Options: map[string]string{OptionTmpfs: value}}); err != nil || got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	if _, err := dropTmpfs(target.Env{Options: map[string]string{OptionTmpfs: "keep"}}); err == nil {
		t.Error("an unknown value is taken")
	}
}
