// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// TestSpareTracersEnd: one that was taken serves on, one that nobody took ends, and
// one that comes later is not kept.
func TestSpareTracersEnd(t *testing.T) {
	var l spareTracers
	taken, left, late := tracer.New(), tracer.New(), tracer.New()
	l.add(left)
	l.add(taken)
	if got := l.take(); got != taken {
		t.Fatal("the tracer that was there was not taken")
	}
	defer taken.Close()
	l.end()
	if l.add(late) {
		t.Error("a tracer was kept that nobody will end")
	}
	nothing := func() error { return nil }
	for _, tr := range []*tracer.Tracer{left, late} {
		if err := tr.Do(nothing); !errors.Is(err, tracer.ErrClosed) {
			t.Errorf("a tracer that nobody took goes on: %v", err)
		}
	}
	if err := taken.Do(nothing); err != nil {
		t.Errorf("a tracer that somebody has ended: %v", err)
	}
	other := l.take()
	defer other.Close()
	if err := other.Do(nothing); err != nil {
		t.Errorf("a new tracer: %v", err)
	}
}

// TestSpareTracersOfFiltered: tracers that are started for processes under filters are
// prepared for a slow end, and others are not.
func TestSpareTracersOfFiltered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: file systems of its own")
	}
	spare := func(pid int) *Source {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			t.Fatal(err)
		}
		s := &Source{Freezer: &Freezer{dir: dir}, proc: procfs.Host()}
		s.startTracers()
		return s
	}
	before := threadsInOverlays(t)
	defer spare(os.Getpid()).spare.end()
	other := spare(filteredThread(t))
	defer other.spare.end()
	for deadline := time.Now().Add(20 * time.Second); threadsInOverlays(t) != before+1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d threads have an overlay as working directory, %d had before: %v", threadsInOverlays(t), before, other.spare.take().EndSlowly())
		}
	}
}

// filteredThread is a thread under a filter that allows everything.
func filteredThread(t *testing.T) int {
	t.Helper()
	tid, done := make(chan int), make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		runtime.LockOSThread() // never unlocked: it ends with its filter
		allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
		program := unix.SockFprog{Len: 1, Filter: &allow}
		if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
			t.Error(err)
		}
		tid <- unix.Gettid()
		<-done
	}()
	return <-tid
}

// threadsInOverlays counts this program's threads whose working directory is an overlay
// and not the program's.
func threadsInOverlays(t *testing.T) (n int) {
	t.Helper()
	var here unix.Stat_t
	if err := unix.Stat(".", &here); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		dir := fmt.Sprintf("/proc/self/task/%s/cwd", e.Name())
		var st unix.Stat_t
		var fs unix.Statfs_t
		if unix.Stat(dir, &st) == nil && st.Dev != here.Dev && unix.Statfs(dir, &fs) == nil && fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
			n++
		}
	}
	return n
}
