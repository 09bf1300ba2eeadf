// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// TestHostileMounts: an image mounts only what the export sends.
func TestHostileMounts(t *testing.T) {
	good := func() *state.Mount {
		return &state.Mount{Target: []byte("/run/x"), Type: "tmpfs", Source: []byte("tmpfs"), Flags: unix.MS_NOSUID, Data: []byte("size=1024k,nr_inodes=17,mode=750")}
	}
	if err := checkMount(good()); err != nil {
		t.Fatal(err)
	}
	huge := func(m *state.Mount) {
		m.Type, m.Data = "hugetlbfs", []byte("size=8388608,min_size=4194304,nr_inodes=9,mode=1770,pagesize=2M")
	}
	m := good()
	if huge(m); checkMount(m) != nil {
		t.Error(checkMount(m))
	}
	for name, edit := range map[string]func(*state.Mount){
		"a hugetlbfs of a user": func(m *state.Mount) { huge(m); m.Data = []byte("pagesize=2M,uid=0") },
		"tmpfs with huge pages": func(m *state.Mount) { m.Data = []byte("pagesize=2M") },
		"hugetlbfs of blocks":   func(m *state.Mount) { huge(m); m.Data = []byte("nr_blocks=2") },
		"percents of the pool":  func(m *state.Mount) { huge(m); m.Data = []byte("size=50%") },
		"relative":              func(m *state.Mount) { m.Target = []byte("run/x") },
		"upwards":               func(m *state.Mount) { m.Target = []byte("/run/../proc") },
		"a device":              func(m *state.Mount) { m.Type = "ext4" },
		"an overlay":            func(m *state.Mount) { m.Type = "overlay" },
		"a remount":             func(m *state.Mount) { m.Flags = unix.MS_REMOUNT },
		"a move":                func(m *state.Mount) { m.Flags = unix.MS_MOVE },
		"propagation":           func(m *state.Mount) { m.Flags = unix.MS_SHARED },
		"another option":        func(m *state.Mount) { m.Data = []byte("size=1k,usrquota") },
		"another value":         func(m *state.Mount) { m.Data = []byte("size=1k;x") },
		"options of proc":       func(m *state.Mount) { m.Type, m.Data = "proc", []byte("hidepid=0") },
		"a bind of nothing":     func(m *state.Mount) { m.Type = "" },
		"a bind from outside":   func(m *state.Mount) { m.Type, m.From = "", []byte("/proc/../x") },
		"a NUL byte":            func(m *state.Mount) { m.Source = []byte("a\x00b") },
	} {
		m := good()
		edit(m)
		if err := checkMount(m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestFindLayer: what a mount table says of a container's root.
func TestFindLayer(t *testing.T) {
	root := t.TempDir()
	overlay := func(options ...string) []procfs.Mount {
		return []procfs.Mount{{ID: 1, Target: "/", FSType: "ext4"}, {ID: 2, Target: root, FSType: "overlay", SuperOptions: options}}
	}
	for name, c := range map[string]struct {
		mounts     []procfs.Mount
		base       string
		upper, why string
	}{
		"overlay":       {overlay("rw", "lowerdir=/l", "upperdir=/u/fs", "workdir=/u/work"), "", "/u/fs", ""},
		"read-only":     {overlay("ro", "lowerdir=/l:/m"), "", "", ""},
		"redirect_dir":  {overlay("upperdir=/u", "redirect_dir=on"), "", "", "redirect_dir=on"},
		"no redirects":  {overlay("upperdir=/u", "redirect_dir=nofollow", "metacopy=off"), "", "/u", ""},
		"metacopy":      {overlay("upperdir=/u", "metacopy=on"), "", "", "metacopy=on"},
		"relative":      {overlay("upperdir=u"), "", "", "relative"},
		"a directory":   {[]procfs.Mount{{ID: 2, Target: root, FSType: "ext4", Root: "/snapshots/1"}}, "", "", "no overlay"},
		"with its base": {[]procfs.Mount{{ID: 2, Target: root, FSType: "ext4", Root: "/snapshots/1"}}, "/base", root, ""},
		"covered":       {append(overlay("upperdir=/u"), overlay("upperdir=/over")[1]), "", "/over", ""},
	} {
		l, err := findLayer(c.mounts, root, c.base)
		got := ""
		if l != nil {
			got = l.path
		}
		if got != c.upper || (err != nil) != (c.why != "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestSortVolumes: a writable volume of which nothing is said is refused by
// name.
func TestSortVolumes(t *testing.T) {
	dir := t.TempDir()
	files := &target.Files{Mounts: []target.SpecMount{
		{Destination: "/data", Type: "bind", Source: dir, Options: []string{"rbind", "rw"}},
		{Destination: "/conf/", Type: "bind", Source: dir, Options: []string{"rbind", "ro"}},
		{Destination: "/sock", Type: "bind", Source: dir + "/none", Options: []string{"bind"}},
		{Destination: "/proc", Type: "proc"},
	}}
	for name, c := range map[string]struct {
		options map[string]string
		copied  int
		refused []string
	}{
		"nothing":       {nil, 0, []string{"/data", "/sock"}},
		"both":          {map[string]string{OptionCopy: "/data/", OptionShared: "/sock"}, 1, nil},
		"no directory":  {map[string]string{OptionCopy: "/data,/sock"}, 1, []string{"/sock"}},
		"no mount":      {map[string]string{OptionCopy: "/data", OptionShared: "/sock,/proc"}, 1, []string{"/proc"}},
		"read-only too": {map[string]string{OptionCopy: "/data,/conf", OptionShared: "/sock"}, 2, nil},
	} {
		v, err := sortVolumes(files, c.options)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(v.copied) != c.copied || len(v.refused) != len(c.refused) {
			t.Errorf("%s: copied %v, refused %v", name, v.copied, v.refused)
			continue
		}
		for i, r := range v.refused {
			if !strings.Contains(r.what, "volume "+c.refused[i]) || r.remedy == "" {
				t.Errorf("%s: %v", name, r)
			}
		}
	}
	if _, err := sortVolumes(files, map[string]string{OptionCopy: "data"}); err == nil {
		t.Error("a relative path is taken")
	}
}
