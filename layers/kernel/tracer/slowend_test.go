// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEndSlowly: what a tracer's thread has to wait for at its end is in nobody's
// mount table, nobody else's working directory, and has gone when its tracees are let
// go, however it ends.
func TestEndSlowly(t *testing.T) {
	g := launch(t, "strict")
	tr := New()
	p := attach(t, tr, g.pid)
	must(t, dump(p)) // it has a guard now
	dir := fmt.Sprintf("/proc/self/task/%d/cwd", tr.tid)
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	if fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
		t.Fatalf("the working directory is of type %#x: %v", fs.Type, tr.EndSlowly())
	}
	onlyThere(t, dir, tr.tid)

	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, dir, unix.IN_DELETE_SELF) // and IN_UNMOUNT
	must(t, err)
	// It ends as in the death of its program, with all that it holds.
	tr.tasks <- task{fn: func() error { runtime.Goexit(); return nil }}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Microsecond) {
		st, err := readStatus(g.pid, g.pid)
		must(t, err)
		if st.TracerPid == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is still traced")
		}
	}
	var event [64]byte
	if n, err := unix.Read(watch, event[:]); err != nil || n < unix.SizeofInotifyEvent || binary.NativeEndian.Uint32(event[4:])&unix.IN_UNMOUNT == 0 {
		t.Errorf("let go before the overlay went: %d bytes, %v, % x", n, err, event)
	}
	threads.Delete(tr.tid)
	_, err = g.in.Write([]byte("x"))
	must(t, err)
	if s := g.line(); s != "OK" {
		t.Fatal(s)
	}
}

// onlyThere: what is at dir is mounted nowhere, and thread tid's alone.
func onlyThere(t *testing.T, dir string, tid int) {
	t.Helper()
	var there unix.Stat_t
	must(t, unix.Stat(dir, &there))
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if device := fmt.Sprintf(" %d:%d ", unix.Major(there.Dev), unix.Minor(there.Dev)); strings.Contains(string(table), device) {
		t.Errorf("%s is mounted:\n%s", device, table)
	}
	tids, err := listTasks(os.Getpid())
	must(t, err)
	for _, other := range tids {
		var st unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/self/task/%d/cwd", other), &st)
		if errors.Is(err, unix.ENOENT) || other == tid {
			continue // it has ended
		}
		must(t, err)
		if st.Dev == there.Dev {
			t.Errorf("thread %d is there, too", other)
		}
	}
}

// TestEndSlowlyUnasked: a tracer of processes without filters ends as any thread.
func TestEndSlowlyUnasked(t *testing.T) {
	g := launch(t, "victim")
	tr := newTracer(t)
	p := attach(t, tr, g.pid)
	must(t, dump(p))
	must(t, p.Detach())
	var here, there unix.Stat_t
	must(t, unix.Stat(".", &here))
	must(t, unix.Stat(fmt.Sprintf("/proc/self/task/%d/cwd", tr.tid), &there))
	if here.Dev != there.Dev || here.Ino != there.Ino {
		t.Error("its working directory is another one")
	}
}
