// SPDX-License-Identifier: Apache-2.0

package event

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// watched is what /proc shows of an instance that watches files of this process.
func watched(t *testing.T, names ...string) *target.Descriptor {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, name := range names {
		if _, err := unix.InotifyAddWatch(fd, name, unix.IN_DELETE_SELF|unix.IN_DONT_FOLLOW); err != nil {
			t.Fatal(name, err)
		}
	}
	d := &target.Descriptor{FD: fd, Holder: os.Getpid()}
	if d.Info, err = procfs.Host().Process(os.Getpid()).FDInfo(fd); err != nil {
		t.Fatal(err)
	}
	return d
}

func tree(t *testing.T, dir string) []string {
	t.Helper()
	names := []string{dir, filepath.Join(dir, "a"), filepath.Join(dir, "a/b/c"), filepath.Join(dir, "a/b/c/file"), filepath.Join(dir, "link")}
	if err := os.MkdirAll(names[2], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names[3], []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", names[4]); err != nil {
		t.Fatal(err)
	}
	return names
}

// overlay mounts a tree as a container's root is mounted. Of it the kernel takes
// no handle back.
func overlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tree(t, filepath.Join(dir, "lower", "low"))
	merged := filepath.Join(dir, "merged")
	options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	return merged
}

// TestWatchedFilesAreFound: with the handles that the kernel shows and without,
// on a file system that takes them back and on an overlay.
func TestWatchedFilesAreFound(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts: needs root")
	}
	merged := overlay(t)
	low := filepath.Join(merged, "low")
	plain := tree(t, filepath.Join(t.TempDir(), "plain"))
	onOverlay := append(tree(t, filepath.Join(merged, "up")), low, filepath.Join(low, "a/b/c/file"), filepath.Join(low, "link"))
	for _, handles := range []bool{true, false} {
		names := slices.Clone(onOverlay)
		if handles { // without, this machine's root would be walked
			names = append(names, plain...)
		}
		slices.Sort(names)
		d := watched(t, names...)
		for i := range d.Info.Inotify {
			if !handles {
				d.Info.Inotify[i].Handle = nil
			}
		}
		s := New(target.Env{Source: &target.Source{Init: os.Getpid()}})
		for range 2 { // the second time from what was found
			list, err := s.describeWatches(d)
			if err != nil {
				t.Fatalf("handles: %v: %v", handles, err)
			}
			if got := paths(list); !slices.Equal(got, names) {
				t.Errorf("handles: %v: found %q, not %q", handles, got, names)
			}
		}
	}
	// What was found is moved: the old path leads to something else.
	d := watched(t, low)
	s := New(target.Env{Source: &target.Source{Init: os.Getpid()}})
	if _, err := s.describeWatches(d); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(merged, "up", "a", "moved")
	up := filepath.Join(merged, "up", "a")
	d = watched(t, up)
	if _, err := s.describeWatches(d); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(moved, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(up, filepath.Join(merged, "away")); err == nil {
		if list, err := s.describeWatches(d); err != nil || list[0].Path != filepath.Join(merged, "away") {
			t.Errorf("behind a rename: %v, %v", list, err)
		}
	} else {
		t.Error(err)
	}
}

func paths(list []*state.FileWatch) []string {
	var out []string
	for _, w := range list {
		out = append(out, w.Path)
	}
	slices.Sort(out)
	return out
}

func TestRemovedFileIsNotFound(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts: needs root")
	}
	name := filepath.Join(overlay(t), "file")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	d := watched(t, name)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	s := New(target.Env{Source: &target.Source{Init: os.Getpid()}})
	if list, err := s.describeWatches(d); err == nil {
		t.Errorf("found as %v", list)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
