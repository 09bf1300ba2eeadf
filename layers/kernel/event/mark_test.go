// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// listen makes a group of this process.
func listen(t *testing.T, flags uint) int {
	t.Helper()
	fd, err := unix.FanotifyInit(flags|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func mark(t *testing.T, fd int, flags uint, mask uint64, path string) {
	t.Helper()
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_DONT_FOLLOW|flags, mask, unix.AT_FDCWD, path); err != nil {
		t.Fatal(path, err)
	}
}

// shown is what /proc shows of a group.
func shown(t *testing.T, fd int) *target.Descriptor {
	t.Helper()
	d := &target.Descriptor{FD: fd, Holder: os.Getpid(), Link: procfs.FDLink{Kind: procfs.FDFanotify}}
	var err error
	if d.Info, err = procfs.Host().Process(os.Getpid()).FDInfo(fd); err != nil {
		t.Fatal(err)
	}
	return d
}

// describe is what an export makes of a group.
func describe(d *target.Descriptor) (*state.EventGroup, error) {
	_, msg, err := classify(d, os.Getpid())
	if err != nil {
		return nil, err
	}
	m := msg.(*state.EventGroup)
	return m, New(target.Env{Source: &target.Source{Init: os.Getpid()}}).describeGroup(d, m)
}

// TestMarksAreDescribed: of files, mounts and file systems, with what is ignored.
func TestMarksAreDescribed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts: needs root")
	}
	merged := overlay(t)
	dir, file, link := filepath.Join(merged, "low"), filepath.Join(merged, "low/a/b/c/file"), filepath.Join(merged, "low/link")
	fd := listen(t, unix.FAN_REPORT_DFID_NAME|unix.FAN_REPORT_FID|unix.FAN_REPORT_TARGET_FID)
	mark(t, fd, 0, unix.FAN_CREATE|unix.FAN_ONDIR|unix.FAN_EVENT_ON_CHILD, dir)
	mark(t, fd, unix.FAN_MARK_IGNORE_SURV, unix.FAN_OPEN, dir)
	mark(t, fd, unix.FAN_MARK_EVICTABLE, unix.FAN_MODIFY, file)
	mark(t, fd, unix.FAN_MARK_IGNORED_MASK, unix.FAN_CLOSE, link)
	got, err := describe(shown(t, fd))
	if err != nil {
		t.Fatal(err)
	}
	want := []*state.GroupMark{
		{Path: dir, Mask: unix.FAN_CREATE | unix.FAN_ONDIR | unix.FAN_EVENT_ON_CHILD, Ignored: unix.FAN_OPEN, Flags: unix.FAN_MARK_IGNORE_SURV},
		{Path: file, Mask: unix.FAN_MODIFY, Flags: unix.FAN_MARK_EVICTABLE},
		{Path: link, Ignored: unix.FAN_CLOSE},
	}
	equalMarks(t, got.Mark, want)

	fd = listen(t, unix.FAN_CLASS_CONTENT)
	mark(t, fd, unix.FAN_MARK_MOUNT, unix.FAN_OPEN, file)
	mark(t, fd, unix.FAN_MARK_FILESYSTEM, unix.FAN_MODIFY, file)
	if got, err = describe(shown(t, fd)); err != nil {
		t.Fatal(err)
	}
	equalMarks(t, got.Mark, []*state.GroupMark{
		{Path: merged, Object: unix.FAN_MARK_MOUNT, Mask: unix.FAN_OPEN}, {Path: merged, Object: unix.FAN_MARK_FILESYSTEM, Mask: unix.FAN_MODIFY},
	})
}

func equalMarks(t *testing.T, got, want []*state.GroupMark) {
	t.Helper()
	order := func(a, b *state.GroupMark) int {
		return strings.Compare(a.Path, b.Path)*2 + int(a.Object) - int(b.Object)
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.EqualFunc(got, want, func(a, b *state.GroupMark) bool { return proto.Equal(a, b) }) {
		t.Errorf("described %v, not %v", got, want)
	}
}

// TestGroupsThatAreRefused by a name that says what to do.
func TestGroupsThatAreRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts: needs root")
	}
	merged := overlay(t)
	low, gone := filepath.Join(merged, "low"), filepath.Join(merged, "gone")
	if err := os.Mkdir(gone, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags uint
		make  func(fd int)
		want  string
	}{
		"decides":    {unix.FAN_CLASS_CONTENT, func(fd int) { mark(t, fd, 0, unix.FAN_OPEN_EXEC_PERM, filepath.Join(low, "a/b/c/file")) }, "it decides who may open"},
		"namespace":  {unix.FAN_REPORT_MNT, func(int) {}, "flags 0x4000"},
		"may decide": {unix.FAN_CLASS_CONTENT, func(fd int) { mark(t, fd, 0, unix.FAN_OPEN|unix.FAN_ONDIR, low); look(t, low) }, "may wait for an answer"},
		"limitless":  {unix.FAN_UNLIMITED_QUEUE, func(fd int) { mark(t, fd, 0, unix.FAN_OPEN|unix.FAN_ONDIR, low); look(t, low) }, "has no limit"},
		"removed": {unix.FAN_REPORT_FID, func(fd int) {
			mark(t, fd, 0, unix.FAN_OPEN, gone)
			f, err := os.Open(gone) // keeps the inode
			if err = errors.Join(err, os.Remove(gone)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, "is not found by any name"},
	} {
		fd := listen(t, c.flags)
		c.make(fd)
		_, err := describe(shown(t, fd))
		var r *refusal
		if !errors.As(err, &r) || r.what != groupName || r.remedy == "" || !strings.Contains(r.why, c.want) {
			t.Errorf("%s: refused with %v, not because %q", name, err, c.want)
		}
		unix.Close(fd)
	}
	// A mount that another one hides has no path.
	fd := listen(t, unix.FAN_CLASS_NOTIF)
	mark(t, fd, unix.FAN_MARK_MOUNT, unix.FAN_OPEN, merged)
	if err := unix.Mount("tmpfs", merged, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	_, err := describe(shown(t, fd))
	if err == nil || !strings.Contains(err.Error(), "hidden by a mount") {
		t.Errorf("a hidden mount: %v", err)
	}
	if err := unix.Unmount(merged, 0); err != nil {
		t.Error(err)
	}
}

// look opens a directory.
func look(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOverflowAlone: whatever a group reports, its reader finds an overflow and
// then what is new, and no descriptor is left open here.
func TestOverflowAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("groups that report descriptors: needs root")
	}
	most, err := maxGroupQueue()
	if err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string]uint{
		"descriptors": 0, "files": unix.FAN_REPORT_FID, "names": unix.FAN_REPORT_DFID_NAME_TARGET, "processes": unix.FAN_REPORT_PIDFD | unix.FAN_REPORT_FID,
		"threads": unix.FAN_REPORT_TID | unix.FAN_REPORT_DIR_FID,
	} {
		fd := listen(t, flags)
		before := openHere(t)
		if err := fillGroup(fd, most, flags&fidFlags != 0); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if now := openHere(t); now != before {
			t.Errorf("%s: %d descriptors are open, %d were", name, now, before)
		}
		if d := shown(t, fd); len(d.Info.Fanotify.Marks) != 0 {
			t.Errorf("%s: marks are left: %+v", name, d.Info.Fanotify.Marks)
		}
		buf := make([]byte, 4096)
		n, err := unix.Read(fd, buf)
		if err != nil || buf[9]&(unix.FAN_Q_OVERFLOW>>8) == 0 || int(buf[0]) != n {
			t.Errorf("%s: read % x, %v, not an overflow alone", name, buf[:max(n, 0)], err)
		}
	}
}

// openHere counts this process's descriptors.
func openHere(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestNeedsAdmin(t *testing.T) {
	for _, c := range []struct {
		init   uint32
		object uint32
		want   bool
	}{
		{unix.FAN_REPORT_FID, 0, false}, {unix.FAN_REPORT_DFID_NAME | unix.FAN_CLOEXEC, 0, false}, {unix.FAN_REPORT_FID, unix.FAN_MARK_MOUNT, true},
		{unix.FAN_REPORT_FID | unix.FAN_UNLIMITED_MARKS, 0, true}, {unix.FAN_CLASS_NOTIF, 0, true}, {unix.FAN_REPORT_FID, unix.FAN_MARK_FILESYSTEM, true},
	} {
		m := &state.EventGroup{Init: c.init, Mark: []*state.GroupMark{{}, {Object: c.object}}}
		if needsAdmin(m) != c.want {
			t.Errorf("flags %#x, object %#x: %v", c.init, c.object, !c.want)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte("\x18\x00\x00\x00\x03\x00\x18\x00\x20\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x01\x00\x00\x00"))
	f.Add([]byte("\x20\x00\x00\x00\x03\x00\x18\x00\x20\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x01\x00\x00\x00\x04\x00\x08\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, _ := eachEvent(b, func(int32) {}); n > len(b)/24 {
			t.Fatalf("%d events in %d bytes", n, len(b))
		}
	})
}
