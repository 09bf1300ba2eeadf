// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
)

func fake(t *testing.T) FS {
	file := func(name string) *fstest.MapFile { return &fstest.MapFile{Data: golden(t, name)} }
	link := func(target string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	return New(fstest.MapFS{
		"7/maps": file("maps"), "7/smaps": file("smaps"), "7/fd/3": link("socket:[5]"), "7/fd/4": link("junk"),
		"7/fdinfo/3": file("fdinfo/socket"), "7/ns/net": link("net:[6]"), "7/exe": link("/bin/x (deleted)"),
		"7/map_files/1000-2000": link("/lib/y"), "7/task/9/comm": {Data: []byte("worker\n")}, "7/task/7/comm": {},
		"7/task/7/children": {Data: []byte("8 10 ")}, "9/timerslack_ns": {Data: []byte("50\n")},
		"7/stat": {Data: []byte("broken\n")}, "uptime": {},
		"sys/kernel/cap_last_cap": {Data: []byte("40\n")},
		"7/mountinfo":             file("mountinfo"), "7/net/tcp": file("tcp"), "7/net/unix": file("unix"),
	})
}

func TestTaskOverAnyFS(t *testing.T) {
	f := fake(t)
	p := f.Process(7)
	equal(t, must(f.Processes())(t), []int{7, 9})
	equal(t, must(p.Threads())(t), []int{7, 9})
	equal(t, must(p.FDs())(t), []int{3, 4})
	equal(t, must(p.Children())(t), []int{8, 10})
	equal(t, must(p.Thread(9).Comm())(t), "worker")
	equal(t, must(p.Thread(9).TimerSlack())(t), 50)
	equal(t, must(f.CapLastCap())(t), 40)
	equal(t, must(p.FDLink(3))(t), FDLink{Kind: FDSocket, Name: "socket", Inode: 5})
	equal(t, must(p.Exe())(t), FDLink{Kind: FDPath, Path: "/bin/x", Deleted: true})
	equal(t, must(p.MapFile(0x1000, 0x2000))(t), FDLink{Kind: FDPath, Path: "/lib/y"})
	equal(t, must(p.Namespaces())(t), map[string]NSLink{"net": {"net", 6}})
	equal(t, must(p.FDInfo(3))(t).SCMFds, 2)
	equal(t, must(p.Maps())(t), must(ParseMaps(golden(t, "maps")))(t))
	equal(t, must(p.Smaps())(t), must(ParseSmaps(golden(t, "smaps")))(t))
	equal(t, len(must(p.Mountinfo())(t)), 3)
	equal(t, len(must(p.Inet("tcp"))(t)), 2)
	equal(t, len(must(p.UnixSockets())(t)), 3)
}

func TestErrorsNameTheFile(t *testing.T) {
	p := fake(t).Process(7)
	if _, err := p.Stat(); err == nil || !strings.Contains(err.Error(), `/proc/7/stat:1: `) {
		t.Errorf("error %v does not name /proc/7/stat", err)
	}
	if _, err := p.FDLink(4); err == nil || !strings.Contains(err.Error(), "/proc/7/fd/4") {
		t.Errorf("error %v does not name /proc/7/fd/4", err)
	}
	if _, err := p.FDInfo(99); !IsGone(err) {
		t.Errorf("%v does not count as gone", err)
	}
	if _, err := Host().Process(1 << 22).Stat(); !IsGone(err) {
		t.Errorf("%v does not count as gone", err)
	}
}

func TestAppendMapsKeepsPrefix(t *testing.T) {
	p := fake(t).Process(7)
	first := must(p.Maps())(t)
	both := must(p.AppendMaps(first[:2:2]))(t)
	if len(both) != len(first)+2 || both[2] != first[0] {
		t.Errorf("%d mappings after appending %d to 2", len(both), len(first))
	}
}

// TestStreamLines reads in the most awkward pieces and with the smallest
// buffer, and must see the same lines as eachLine.
func TestStreamLines(t *testing.T) {
	text := "a\n\n" + strings.Repeat("long ", 100) + "\nb\n"
	var got []string
	keep := func(line []byte) error { got = append(got, string(line)); return nil }
	if _, err := streamLines("x", iotest.OneByteReader(strings.NewReader(text)), make([]byte, 2), keep); err != nil {
		t.Fatal(err)
	}
	equal(t, got, strings.Split(strings.TrimSuffix(text, "\n"), "\n"))

	if _, err := streamLines("x", strings.NewReader("a\nb"), make([]byte, 8), keep); !errors.Is(err, errTruncated) {
		t.Errorf("unfinished line: %v", err)
	}
	if _, err := streamLines("x", strings.NewReader(strings.Repeat("x", 2*maxLine)), make([]byte, 8), keep); !errors.Is(err, ErrTooLarge) {
		t.Errorf("endless line: %v", err)
	}
	broken := errors.New("broken")
	if _, err := streamLines("x", iotest.ErrReader(broken), make([]byte, 8), keep); !errors.Is(err, broken) {
		t.Errorf("read error: %v", err)
	}
}

func TestReadIsBounded(t *testing.T) {
	f := New(fstest.MapFS{"1/cmdline": {Data: make([]byte, 2*maxFile)}})
	if _, err := f.Process(1).Cmdline(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("endless file: %v", err)
	}
}
