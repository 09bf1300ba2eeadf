// SPDX-License-Identifier: Apache-2.0

package target_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/target"
)

// chrooted is the id of a thread whose root is dir, until the test ends.
func chrooted(t *testing.T, dir string) int {
	t.Helper()
	ready, end := make(chan error), make(chan struct{})
	tid := 0
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		tid = unix.Gettid()
		ready <- errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chroot(dir))
		<-end
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(end) })
	return tid
}

// An absolute link inside of a container leads to a place inside of it.
func TestLstatStaysInTheRoot(t *testing.T) {
	kerneltest.NeedRoot(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "run", "server.sock")
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "run"), 0o755), os.Mkdir(filepath.Join(dir, "var"), 0o755),
		os.Symlink("/run", filepath.Join(dir, "var", "run")), os.Symlink("../../../../..", filepath.Join(dir, "up")),
		os.WriteFile(name, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	tid := chrooted(t, dir)
	var want, got unix.Stat_t
	if err := unix.Lstat(name, &want); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/run/server.sock", "/var/run/server.sock", "/up/run/server.sock"} {
		if err := target.Lstat(tid, path, &got); err != nil || got.Ino != want.Ino || got.Dev != want.Dev {
			t.Errorf("%s: inode %d, want %d, error %v", path, got.Ino, want.Ino, err)
		}
	}
	if err := target.Lstat(tid, "/var/run", &got); err != nil || got.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("the link itself: mode %#o, error %v", got.Mode, err)
	}
	if err := target.Lstat(tid, "/up"+dir, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a way out of the root: error %v", err)
	}
}
