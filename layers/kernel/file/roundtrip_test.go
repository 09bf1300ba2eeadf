// SPDX-License-Identifier: Apache-2.0

package file_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/event"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/rootfs"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/spec/record"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(file.New),
	kerneltest.Of(pipe.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

// withEvents carries an epoll instance, too.
var withEvents = append(slices.Clone(all), kerneltest.Of(event.New))

func program(t *testing.T, source string, args ...string) kerneltest.Program {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return kerneltest.Program{Source: "testdata/" + source, Args: append([]string{dir}, args...)}
}

func TestUnlinkedFilesTravel(t *testing.T) {
	p := program(t, "unlinked.c")
	p.Generations, p.LeaveRunning = 2, true
	kerneltest.RoundTrip(t, p, all...)
}

func TestLocks(t *testing.T) {
	p := program(t, "locks.c")
	p.Generations = 3
	kerneltest.RoundTrip(t, p, all...)
}

func TestManyDescriptions(t *testing.T) {
	kerneltest.RoundTrip(t, program(t, "many.c", "10000"), all...)
}

func TestStandardStreams(t *testing.T) {
	p := program(t, "stdio.c")
	p.Generations, p.LeaveRunning = 3, true
	kerneltest.RoundTrip(t, p, all...)
}

// The program reads on with each look, so that its offset tells how often the
// original was looked at.
func TestFilesByPath(t *testing.T) {
	p := program(t, "files.c")
	c := kerneltest.Start(t, p)
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	for range 2 {
		n, err := c.Import(image, all...)
		if err != nil {
			t.Fatal(err)
		}
		n.Verify()
		n.Stop()
	}
}

func TestFilesOfAnUnprivilegedUser(t *testing.T) {
	p := program(t, "unlinked.c")
	p.UID, p.GID = 1000, 1000
	p.Allowed = &kerneltest.Allowed{UID: 1000, GID: 1000}
	kerneltest.RoundTrip(t, p, all...)
}

// A forged image may not open what the container's user could not.
func TestForgedPathIsOpenedAsTheUser(t *testing.T) {
	p := program(t, "files.c")
	p.Allowed = kerneltest.Root()
	c := kerneltest.Start(t, p)
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	dir := p.Args[0]
	if err := os.Chown(dir+"/data", 0, 0); err != nil {
		t.Fatal(err)
	}
	*p.Allowed = kerneltest.Allowed{UID: 1000, GID: 1000}
	_, err = c.Import(image, all...)
	if err == nil || !strings.Contains(err.Error(), "may not open it") {
		t.Fatalf("the import of root's file by uid 1000 said: %v", err)
	}
}

// Nor what the container's root could not, that has fewer capabilities than the
// frame.
func TestForgedPathIsOpenedWithTheSpecsCapabilities(t *testing.T) {
	p := program(t, "files.c")
	p.Allowed = kerneltest.Root()
	c := kerneltest.Start(t, p)
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	data := p.Args[0] + "/data"
	if err := errors.Join(os.Chown(data, 1000, 1000), os.Chmod(data, 0o600)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Import(image, all...)
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	*p.Allowed = kerneltest.Allowed{Bounding: 1 << unix.CAP_CHOWN}
	_, err = c.Import(image, all...)
	if err == nil || !strings.Contains(err.Error(), "may not open it") {
		t.Fatalf("the import of uid 1000's file by a root without CAP_DAC_OVERRIDE said: %v", err)
	}
}

// A file on a tmpfs is opened by its path, also in a directory on it.
func TestFileOnATmpfsOfTheContainer(t *testing.T) {
	for _, args := range [][]string{nil, {"sub"}} {
		p := program(t, "tmpfs.c", args...)
		p.Generations, p.Tmpfs = 2, p.Args[0]
		kerneltest.RoundTrip(t, p, append(slices.Clone(all), kerneltest.Of(rootfs.New))...)
	}
}

// The frame's own descriptors find room between the image's where there is none
// above them.
//
// A limit can be lowered for good only, so another process runs the test.
func TestTableUpToTheLimit(t *testing.T) {
	const limited = "MIG_TEST_LIMITED"
	if os.Getenv(limited) == "" {
		kerneltest.NeedRoot(t)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", `ulimit -n 64 && exec "$0" -test.run '^TestTableUpToTheLimit$' -test.v`, self)
		cmd.Env = append(os.Environ(), limited+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	p := program(t, "limit.c")
	p.Generations = 2
	kerneltest.RoundTrip(t, p, all...)
}

// TestThreads: directories that a thread has of its own are its own again, and so is a
// descriptor table.
func TestThreads(t *testing.T) {
	for _, p := range threadPrograms(t) {
		p.Generations, p.LeaveRunning = 2, true
		kerneltest.RoundTrip(t, p, withEvents...)
	}
}

// threadPrograms are one whose threads have directories of their own, and one of which
// a thread has its own descriptors, too.
func threadPrograms(t *testing.T) []kerneltest.Program {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "here"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return []kerneltest.Program{
		{Source: "testdata/threads.c", Args: []string{dir}},
		{Source: "testdata/threads.c", Args: []string{dir, "table"}},
	}
}

// TestForgedThreads: an image in which not all is said of what a thread has of its own
// is refused; one without the list of such threads is of an earlier version, and good
// as long as they have no table.
func TestForgedThreads(t *testing.T) {
	without := func(im *kerneltest.Image, subsystem string, kind uint32) *kerneltest.Image {
		return &kerneltest.Image{Processes: im.Processes, Records: slices.DeleteFunc(slices.Clone(im.Records), func(r *record.Record) bool {
			return r.Subsystem == subsystem && r.Kind == kind
		})}
	}
	list := threadPrograms(t)
	c := kerneltest.Start(t, list[1])
	image, err := c.Export(false, withEvents...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	for want, forged := range map[string]*kerneltest.Image{
		"has none of its own":                without(image, task.Name, task.KindGroups),
		"has no descriptor table for thread": without(image, file.Name, file.KindThreadTable),
	} {
		if _, err := c.Import(forged, withEvents...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("an import that was to say %q: %v", want, err)
		}
	}
	old := kerneltest.Start(t, list[0])
	if image, err = old.Export(false, withEvents...); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(image.Records, func(r *record.Record) bool { return r.Subsystem == task.Name && r.Kind == task.KindGroups }) {
		t.Error("an earlier version could not read an image in which it knows everything")
	}
}
