// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// world is a hierarchy of version 2 with controllers, which the machine of a test may
// have bound to version 1: plain files in its place. It returns the container's own
// cgroup.
func world(t *testing.T, controllers string) string {
	t.Helper()
	own := t.TempDir()
	cgroup := func(path, control string, files map[string]string) {
		dir := filepath.Join(own, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, dir, map[string]string{"cgroup.type": "domain\n", "cgroup.events": "populated 0\n", "cgroup.freeze": "0\n",
			"cgroup.controllers": controllers + "\n", "cgroup.subtree_control": control + "\n", "pids.max": "max\n"})
		put(t, dir, files)
	}
	cgroup("", "cpu pids", nil)
	cgroup("a", "pids", map[string]string{"cpu.max": "50000 100000\n", "cpu.weight": "100\n", "pids.max": "7\n", "cpu.idle": "0\n"})
	cgroup("a/b c", "", map[string]string{"cgroup.type": "threaded\n", "io.max": "8:0 rbps=1\n", "hugetlb.2MB.max": "2097152\n"})
	if err := os.Chmod(filepath.Join(own, "a", "pids.max"), 0o600); err != nil {
		t.Fatal(err)
	}
	return own
}

// writableFiles are those of a spec that mounts cgroups writable.
var writableFiles = target.Files{Mounts: []target.SpecMount{{Destination: "/sys/fs/cgroup", Type: "cgroup"}}}

func subsystemOf(own string) *Subsystem {
	return New(target.Env{Source: &target.Source{Init: os.Getpid(), Cgroups: map[string]string{"": own}, Files: writableFiles}})
}

// TestRead: what is different from new cgroups is found, with who may use what.
func TestRead(t *testing.T) {
	own := world(t, "cpu pids")
	trees, err := subsystemOf(own).carried()
	if err != nil || len(trees) != 1 {
		t.Fatalf("%d trees, %v", len(trees), err)
	}
	h := trees[0].Hierarchy
	if _, err := decode(encode(t, h)); err != nil {
		t.Error(err)
	}
	var got strings.Builder
	fmt.Fprint(&got, h.SubtreeControl, trees[0].lost, trees[0].frozen)
	for _, c := range h.Cgroup {
		fmt.Fprintf(&got, "\n%d/%s %v %v", c.Parent, c.Name, c.Threaded, c.SubtreeControl)
		for _, s := range c.Setting {
			fmt.Fprintf(&got, " %s=%s", s.Name, s.Value)
		}
		for _, f := range c.File {
			fmt.Fprintf(&got, " %s:%o", f.Name, f.Mode)
		}
	}
	want := `[cpu pids] [/a/b c/io.max] []
0/a false [pids] cpu.max=50000 100000 pids.max=7 :755 pids.max:600
1/b c true [] hugetlb.2MB.max=2097152 :755`
	if got.String() != want {
		t.Errorf("%s\nwant:\n%s", got.String(), want)
	}
}

// TestPreflight: what is refused and what is warned of.
func TestPreflight(t *testing.T) {
	for what, c := range map[string]struct {
		change  func(own string, s *target.Source)
		warning bool
		says    string
	}{
		"settings of this host": {func(string, *target.Source) {}, true, "1 settings of cgroups in cgroup version 2, as /a/b c/io.max"},
		"frozen": {func(own string, _ *target.Source) {
			put(t, filepath.Join(own, "a"), map[string]string{"cgroup.freeze": "1\n"})
		}, false, "frozen cgroup /a in cgroup version 2"},
		"another's": {func(_ string, s *target.Source) { s.Files.Mounts = nil }, true, "2 cgroups below the container's own in cgroup version 2"},
		"too deep": {func(own string, _ *target.Source) {
			if err := os.MkdirAll(filepath.Join(own, strings.Repeat("x/", maxDepth+1)), 0o755); err != nil {
				t.Fatal(err)
			}
			for at := own; at != "/"; {
				at = filepath.Join(at, "x")
				if _, err := os.Stat(at); err != nil {
					break
				}
				put(t, at, map[string]string{"cgroup.type": "domain", "cgroup.subtree_control": ""})
			}
		}, false, "deeper than 32 levels"},
	} {
		own := world(t, "cpu pids")
		s := subsystemOf(own)
		c.change(own, s.env.Source)
		found, err := s.Preflight(t.Context())
		if err != nil || len(found) == 0 || found[0].Warning != c.warning || !strings.Contains(found[0].String(), c.says) {
			t.Errorf("%s: %v, %v", what, found, err)
		}
	}
	s := New(target.Env{Source: &target.Source{Init: os.Getpid(), Cgroups: map[string]string{"": t.TempDir()}}})
	if found, err := s.Preflight(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("nothing there: %v, %v", found, err)
	}
}

// source is a copy's way to the subsystem of its source.
type source struct {
	target.Peer
	s *Subsystem
}

func (p source) Command(ctx context.Context, c record.Command) (record.Command, error) {
	if p.s == nil {
		return record.Command{}, errors.ErrUnsupported
	}
	return p.s.Command(ctx, c)
}

// TestDestinationIsAskedFirst: a host, or a specification, that cannot have the
// cgroups says so before anything is stopped.
func TestDestinationIsAskedFirst(t *testing.T) {
	from := subsystemOf(world(t, "cpu pids"))
	for what, c := range map[string]struct {
		peer    source
		cgroups map[string]string
		files   target.Files
		says    string
	}{
		"all is there":              {source{s: from}, map[string]string{"": world(t, "memory pids cpu")}, writableFiles, ""},
		"a source of long ago":      {source{}, nil, target.Files{}, ""},
		"no such hierarchy":         {source{s: from}, map[string]string{"pids": t.TempDir()}, writableFiles, "on this host there is none such"},
		"a controller is missing":   {source{s: from}, map[string]string{"": world(t, "pids")}, writableFiles, `cpu, pids, and has here "pids"`},
		"the spec has none to make": {source{s: from}, map[string]string{"": world(t, "cpu pids")}, target.Files{}, "this container may make none"},
	} {
		s := New(target.Env{Frame: &target.Frame{Init: os.Getpid(), Cgroups: c.cgroups, Files: c.files}, Peer: c.peer})
		err := s.Prepare(t.Context())
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := (&Subsystem{}).possible([]byte{0xff}); err == nil {
		t.Error("an answer that is none is accepted")
	}
}
