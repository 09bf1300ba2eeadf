// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// overlay is a mount of one that has no place in any namespace.
type overlay struct{ lower, upper, merged string }

func newOverlay(t *testing.T, lower string, options ...string) *overlay {
	t.Helper()
	needRoot(t)
	o := &overlay{lower: lower, upper: t.TempDir()}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fs)
	for _, option := range append(options, "lowerdir="+lower, "upperdir="+o.upper, "workdir="+t.TempDir()) {
		name, value, _ := strings.Cut(option, "=")
		must(t, unix.FsconfigSetString(fs, name, value))
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Skipf("no overlay can be mounted on this file system: %v", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	o.merged = procFD(fd) + "/."
	return o
}

// lowerLayer is a small image.
func lowerLayer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"etc", "var/lib/db", "var/log", "usr/share/doc/deep", "replaced/old"} {
		must(t, os.MkdirAll(dir+"/"+d, 0o755))
	}
	for _, f := range []string{"etc/passwd", "etc/removed", "var/lib/db/data", "usr/share/doc/a", "usr/share/doc/deep/b", "replaced/old/file", "touched", "grown"} {
		write(t, dir+"/"+f, strings.Repeat(f, 1000))
	}
	must(t, os.Symlink("etc/passwd", dir+"/link"))
	must(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	return dir
}

// copyOf is the same image on another host.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	out := t.TempDir()
	must(t, exec.Command("cp", "-a", dir+"/.", out).Run())
	return out
}

func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// changes are what a container does to its root, in steps.
var changes = []string{
	"echo new >etc/new; echo more >>etc/passwd; rm etc/removed; mkdir -p var/lib/db/sub; echo x >var/lib/db/sub/x; ln etc/new hard; mkfifo fifo",
	"rm -r usr/share/doc; mkdir usr/share/doc; echo only >usr/share/doc/only; touch -d '2001-02-03 04:05:06.789' touched; chmod 600 grown",
	"rm -r replaced; echo file >replaced; rm link; mkdir link; echo in >link/in; rm null; mknod null c 1 5",
	"rm -r link; ln -s elsewhere link; mv etc/new etc/renamed; head -c 3000000 /dev/urandom >var/log/big; rm -r usr",
	"echo again >etc/removed; mkdir -p usr/bin; echo y >usr/bin/y; rm replaced; mkdir replaced; echo tail >>var/log/big; rm var/lib/db/data",
	"mv var/lib/db/sub var/lib/db/sub2; rm -r replaced; truncate -s 100 var/log/big; chown 12:34 grown; setfattr -n user.k -v v grown 2>/dev/null || true",
}

// TestLayer: what a container writes to its overlay is in another one of the
// same image, after each of several passes.
func TestLayer(t *testing.T) {
	lower := lowerLayer(t)
	src, dst := newOverlay(t, lower), newOverlay(t, copyOf(t, lower))
	tr := transferOf(t, src.upper, dst.merged, ExportOptions{Layer: true}, everything, false)
	check := &transfer{t: t, src: src.merged, dst: dst.merged}
	sh(t, src.merged, changes[0])
	tr.pass(false)
	check.same()
	for i, script := range changes[1:] {
		sh(t, src.merged, script)
		tr.pass(i == len(changes)-2)
		check.same()
	}
	if err := tr.in.Close(); err != nil {
		t.Error(err)
	}
	// Once more, all at once.
	late := newOverlay(t, copyOf(t, lower))
	transferOf(t, src.upper, late.merged, ExportOptions{Layer: true}, everything, false).pass(true)
	(&transfer{t: t, src: src.merged, dst: late.merged}).same()
}

// TestBase: the same between plain directories, of which nobody knows what was
// changed.
func TestBase(t *testing.T) {
	needRoot(t)
	base := lowerLayer(t)
	src, dst := copyOf(t, base), copyOf(t, base)
	o := ExportOptions{Compare: true, Base: openDir(t, base)}
	tr := transferOf(t, src, dst, o, everything, false)
	for i, script := range changes {
		sh(t, src, script)
		tr.pass(i == len(changes)-1)
		tr.same()
	}
	// All at once: only what differs from the base is sent.
	late := transferOf(t, src, copyOf(t, base), o, everything, false)
	late.pass(true)
	late.same()
	for _, item := range late.last {
		if path := string(item.GetEntry().GetPath()); path == "var/lib" || path == "etc/passwd" && len(item.GetEntry().Target) > 0 {
			t.Errorf("sent %s, which is as it was", path)
		}
	}
	unchanged := transferOf(t, copyOf(t, base), copyOf(t, base), o, everything, false)
	if unchanged.pass(true); len(unchanged.last) != 1 {
		t.Errorf("without changes, sent %v", short(unchanged))
	}
}

// TestLayerThatIsNotAlone: an upper directory that lacks what it shows.
func TestLayerThatIsNotAlone(t *testing.T) {
	for _, option := range []string{"redirect_dir=on", "metacopy=on"} {
		o := newOverlay(t, lowerLayer(t), option)
		sh(t, o.merged, "mv var/lib var/moved; chmod 600 touched")
		_, err := NewExporter(openDir(t, o.upper), ExportOptions{Layer: true}).Pass(t.Context(), true, (&Batch{Push: func([]byte) error { return nil }}).Add)
		if err == nil || !strings.Contains(err.Error(), "redirect_dir or metacopy") {
			t.Errorf("%s: said %v", option, err)
		}
	}
}

// TestMountPoints: what is mounted in the root stays.
func TestMountPoints(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(dst+"/etc", 0o755))
	write(t, dst+"/etc/hosts", "")
	must(t, os.MkdirAll(src+"/etc", 0o755))
	write(t, src+"/etc/hosts", "below")
	var before, after unix.Stat_t
	must(t, unix.Stat(dst+"/etc/hosts", &before))
	p := everything
	p.Protected = []string{"etc/hosts"}
	tr := transferOf(t, src, dst, ExportOptions{}, p, false)
	tr.pass(false)
	tr.same()
	must(t, unix.Stat(dst+"/etc/hosts", &after))
	if before.Ino != after.Ino {
		t.Error("the mount point was replaced")
	}
	must(t, os.RemoveAll(src+"/etc"))
	batch := &Batch{Push: func(b []byte) error {
		items, err := Items(b)
		must(t, err)
		return tr.in.Apply(items...)
	}}
	_, err := tr.out.Pass(t.Context(), true, batch.Add)
	if err == nil {
		err = batch.Flush()
	}
	if err == nil || !strings.Contains(err.Error(), "something is mounted") {
		t.Errorf("the removal of a mount point: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dst, "etc/hosts")); err != nil {
		t.Error(err)
	}
}
