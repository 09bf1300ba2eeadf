// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// TestPlaces: several controllers in one hierarchy are one place, and the root of a
// hierarchy is none.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cpu,cpuacct", "pids", "unified", "root1", "root2"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("cpu,cpuacct", filepath.Join(dir, "cpu")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "unified"), map[string]string{"cgroup.type": "domain\n"})
	put(t, filepath.Join(dir, "root1"), map[string]string{"release_agent": ""})
	list, err := places(map[string]string{
		"cpuacct": filepath.Join(dir, "cpu,cpuacct"), "cpu": filepath.Join(dir, "cpu"), "pids": filepath.Join(dir, "pids"),
		"devices": filepath.Join(dir, "gone"), "": filepath.Join(dir, "unified"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range list {
		got = append(got, strings.Join(p.controllers, "+"))
	}
	if strings.Join(got, " ") != " cpu+cpuacct pids" || !list[0].v2 || list[1].v2 {
		t.Errorf("%q", got)
	}
	for controller, name := range map[string]string{"": "root2", "memory": "root1"} {
		h := &state.Hierarchy{Controller: strings.Fields(controller)}
		if p, err := find(h, map[string]string{controller: filepath.Join(dir, name)}); err == nil {
			t.Errorf("the root of a hierarchy is a container's own: %v", p)
		}
	}
	// A controller that is alone there is found here among others, but not elsewhere.
	paths := map[string]string{"cpuacct": filepath.Join(dir, "cpu,cpuacct"), "cpu": filepath.Join(dir, "cpu"), "pids": filepath.Join(dir, "pids")}
	if p, err := find(&state.Hierarchy{Controller: []string{"cpu"}}, paths); err != nil || p.dir != filepath.Join(dir, "cpu") {
		t.Errorf("%v, %v", p, err)
	}
	for _, names := range [][]string{{"cpu", "pids"}, {"memory"}, nil} {
		if _, err := find(&state.Hierarchy{Controller: names}, paths); err == nil || !strings.Contains(err.Error(), "there are the cgroup hierarchy of cpu,cpuacct; ") {
			t.Errorf("%q: %v", names, err)
		}
	}
}

func TestWhoMayMakeCgroups(t *testing.T) {
	mount := func(options ...string) target.Files {
		return target.Files{Mounts: []target.SpecMount{{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: options}}}
	}
	bind := target.Files{Mounts: []target.SpecMount{{Destination: "/cg", Type: "bind", Source: "/sys/fs/cgroup/pids", Options: []string{"rbind"}}}}
	other := target.Files{Mounts: []target.SpecMount{{Destination: "/x", Type: "bind", Source: "/sys/fs/cgroups", Options: []string{"rbind"}}}}
	root, user, owner := &target.Allowed{}, &target.Allowed{UID: 1000}, &target.Allowed{UID: 7}
	ofRoot, of7 := &place{}, &place{stat: unix.Stat_t{Uid: 7}}
	for _, c := range []struct {
		name  string
		p     *place
		files target.Files
		a     *target.Allowed
		may   bool
	}{
		{"writable", ofRoot, mount("nosuid"), root, true},
		{"of a spec that is not known", ofRoot, mount("rw"), nil, true},
		{"read-only", ofRoot, mount("nosuid", "ro"), root, false},
		{"not mounted", ofRoot, target.Files{}, root, false},
		{"a directory of the host", ofRoot, bind, root, true},
		{"another directory", ofRoot, other, root, false},
		{"a user", ofRoot, mount(), user, false},
		{"a user with CAP_SETUID", ofRoot, mount(), &target.Allowed{UID: 1000, Permitted: 1 << unix.CAP_SETUID}, true},
		{"the owner", of7, mount(), owner, true},
		{"not the owner", of7, mount(), user, false},
	} {
		why, err := mayMake(c.p, &c.files, c.a, procfs.Host().Process(os.Getpid()))
		if err != nil || (why == "") != c.may {
			t.Errorf("%s: %q, %v", c.name, why, err)
		}
	}
}
