// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/rootfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sh(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// host is one side of a move: a container with a root on an overlay and a volume
// at the same place as on the other side.
type host struct {
	root, upper, volume string
	c                   *kerneltest.Container
}

// newHost starts a container while the volume is mounted at at, and unmounts it.
func newHost(t *testing.T, lower, at string, p kerneltest.Program) *host {
	t.Helper()
	h := &host{root: t.TempDir(), upper: t.TempDir(), volume: t.TempDir()}
	options := "lowerdir=" + lower + ",upperdir=" + h.upper + ",workdir=" + t.TempDir()
	must(t, unix.Mount("overlay", h.root, "overlay", 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(h.root, unix.MNT_DETACH)) })
	must(t, unix.Mount(h.volume, at, "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) }()
	h.c = kerneltest.Start(t, p)
	return h
}

// move is a rootfs on its way, without a medium.
type move struct {
	t        *testing.T
	source   *target.Source
	frame    *target.Frame
	out, in  *rootfs.Subsystem
	rounds   int
	progress record.Progress
}

func newMove(t *testing.T, from, to *host, at string, options map[string]string) *move {
	t.Helper()
	source, err := target.NewSource(from.c.Pid, from.c.Freezer, from.c.Stdio)
	must(t, err)
	source.Allowed = kerneltest.Root()
	mounts := []target.SpecMount{{Destination: at, Type: "bind", Source: from.volume, Options: []string{"rbind", "rw"}}}
	source.Files = target.Files{Root: from.root, Moves: true, Mounts: mounts}
	frame := &target.Frame{Init: to.c.Pid, Allowed: *kerneltest.Root(), Files: target.Files{Root: to.root, Moves: true, Mounts: mounts}}
	return &move{
		t: t, source: source, frame: frame, out: rootfs.New(target.Env{Source: source, Options: options}), in: rootfs.New(target.Env{Frame: frame, Options: options}),
	}
}

// round makes a pass; what fails on either side is returned.
func (m *move) round(stage record.Stage) error {
	m.t.Helper()
	sink := record.SinkFunc(func(ctx context.Context, r *record.Record) error {
		copied := &record.Record{Header: r.Header, Payload: slices.Clone(r.Payload)}
		if err := copied.Seal(); err != nil {
			return err
		}
		_, err := m.in.Restart(ctx, record.Step{Stage: record.StageReceive}, copied)
		return err
	})
	var err error
	m.progress, err = m.out.Checkpoint(m.t.Context(), record.Step{Stage: stage, Round: m.rounds}, sink)
	m.rounds++
	return err
}

func (m *move) finish() {
	m.t.Helper()
	must(m.t, m.round(record.StageResidual))
	for _, stage := range record.ImportStages {
		_, err := m.in.Restart(m.t.Context(), record.Step{Stage: stage}, nil)
		must(m.t, err)
	}
}

// listing tells all but the links of directories, which an overlay counts as it
// likes.
const listing = "find . -printf '%p %y %m %U:%G %T@ %l\\n' | sort; find . ! -type d -printf '%p %n\\n' | sort; find . -type f | sort | xargs -r sha256sum"

// TestMove: the writable layer and a volume are on the other host when the
// container is, and what is not to be copied is refused.
func TestMove(t *testing.T) {
	kerneltest.NeedRoot(t)
	lower, at := t.TempDir(), t.TempDir()
	sh(t, lower, "mkdir -p etc usr/lib; echo a >etc/a; echo b >etc/b; echo lib >usr/lib/lib.so")
	p := tree(t, 4096)
	from, to := newHost(t, lower, at, p), newHost(t, lower, at, p)
	options := map[string]string{rootfs.OptionCopy: at}
	sh(t, from.root, "echo c >etc/c; rm etc/a; rm -r usr; mkdir -p usr/lib64 var/lib; echo new >usr/lib64/x; chmod 600 etc/b")
	sh(t, from.volume, "mkdir -p base/1; head -c 200000 /dev/urandom >base/1/1234; echo conf >conf; chown 70:70 base conf; chmod 700 base")

	for name, c := range map[string]struct {
		options map[string]string
		want    string
	}{
		"nothing said":   {nil, "volume " + at + " "},
		"another volume": {map[string]string{rootfs.OptionCopy: at + ",/none"}, "volume /none: the container's spec has no bind mount there"},
		"shared":         {map[string]string{rootfs.OptionShared: at}, ""},
		"copied":         {options, ""},
	} {
		found, err := newMove(t, from, to, at, c.options).out.Preflight(t.Context())
		must(t, err)
		if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || !strings.Contains(found[0].String(), c.want)) {
			t.Errorf("%s: the pre-flight says %v", name, found)
		}
	}

	m := newMove(t, from, to, at, options)
	must(t, m.round(record.StageEarly))
	sh(t, from.root, "echo late >>etc/c; mv usr/lib64 usr/lib; echo d >var/lib/d")
	sh(t, from.volume, "echo more >>base/1/1234; rm conf; ln base/1/1234 base/link")
	must(t, m.round(record.StageEarly))
	if m.progress.Bytes == 0 || m.progress.Remaining == 0 {
		t.Errorf("the second round tells %+v", m.progress)
	}
	from.c.Verify()
	m.finish()
	for name, dirs := range map[string][2]string{"root": {from.root, to.root}, "volume": {from.volume, to.volume}} {
		if a, b := sh(t, dirs[0], listing), sh(t, dirs[1], listing); a != b {
			t.Errorf("the %s was:\n%s\nand is:\n%s", name, a, b)
		}
	}
	if _, err := unix.Getxattr(to.volume, "trusted.mig.incomplete", nil); err == nil {
		t.Error("the volume is still marked")
	}

	// The volume has content now, which nobody said may go.
	again := newMove(t, from, to, at, options)
	if err := again.round(record.StageEarly); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a volume that is not empty: %v", err)
	}
	sh(t, to.volume, "echo old >stale")
	replace := newMove(t, from, to, at, map[string]string{rootfs.OptionCopy: at, rootfs.OptionContent: rootfs.ContentReplace})
	replace.finish()
	if a, b := sh(t, from.volume, listing), sh(t, to.volume, listing); a != b {
		t.Errorf("the volume was:\n%s\nand is:\n%s", a, b)
	}
}

// TestMoveIsForMoves: a checkpoint leaves the layer to who asked, and an image
// of one cannot bring any.
func TestMoveIsForMoves(t *testing.T) {
	kerneltest.NeedRoot(t)
	lower, at := t.TempDir(), t.TempDir()
	p := tree(t, 4096)
	from, to := newHost(t, lower, at, p), newHost(t, lower, at, p)
	sh(t, from.root, "echo x >x")
	options := map[string]string{rootfs.OptionCopy: at}
	for _, c := range []struct {
		from, to bool
		want     string
	}{{false, false, ""}, {true, false, "moves from another host only"}} {
		m := newMove(t, from, to, at, options)
		m.source.Files.Moves, m.frame.Files.Moves = c.from, c.to
		err := m.round(record.StageResidual)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v", c, err)
		}
		if list, _ := filepath.Glob(to.root + "/*"); len(list) > 0 {
			t.Errorf("the other root has %v", list)
		}
	}
	m := newMove(t, from, to, at, nil) // this side copies what the other was not told to take
	m.in = rootfs.New(target.Env{Frame: &target.Frame{Init: to.c.Pid, Allowed: *kerneltest.Root(), Files: target.Files{Root: to.root, Moves: true}}})
	m.out = newMove(t, from, to, at, options).out
	if err := m.round(record.StageResidual); err == nil || !strings.Contains(err.Error(), "not told to fill") {
		t.Errorf("a volume that nobody wants: %v", err)
	}
	if _, err := os.ReadDir(to.volume); err != nil {
		t.Error(err)
	}
}
