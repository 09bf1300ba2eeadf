// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/spec/state"
)

// TestWhatIsSet: only what a new cgroup has not is carried, in a form that can be
// written.
func TestWhatIsSet(t *testing.T) {
	const rest = "\nunder_oom 0\noom_kill 0\n"
	for _, c := range []struct {
		name, text, parent, value string
		changed                   bool
	}{
		{"pids.max", "max\n", "", "", false},
		{"pids.max", "7\n", "", "7", true},
		{"memory.limit_in_bytes", "9223372036854771712\n", "", "", false},
		{"memory.limit_in_bytes", "4096\n", "", "4096", true},
		{"hugetlb.2MB.limit_in_bytes", "9223372036852678656\n", "", "", false},
		{"hugetlb.1GB.max", "max\n", "", "", false},
		{"hugetlb.1GB.rsvd.max", "0\n", "", "0", true},
		{"memory.oom_control", "oom_kill_disable 0" + rest, "", "", false},
		{"memory.oom_control", "oom_kill_disable 1" + rest, "", "1", true},
		{"memory.swappiness", "60\n", "60\n", "", false},
		{"memory.swappiness", "60\n", "10\n", "60", true},
		{"devices.list", "c 1:3 rw\nc 1:5 r\n", "c 1:5 r\nc 1:3 rw\n", "", false},
		{"devices.list", "c 1:3 rw\n", "a *:* rwm\n", "c 1:3 rw", true},
		{"devices.list", "", "a *:* rwm\n", "", true},
		{"io.max", "8:0 rbps=1\n", "", "8:0 rbps=1", true},
	} {
		s, _, ok := settingOf(c.name)
		if !ok {
			t.Errorf("%s is not known", c.name)
			continue
		}
		value, changed := s.value(c.text, c.parent)
		if changed != c.changed || changed && value != c.value {
			t.Errorf("%s: %q below %q: %q, %v", c.name, c.text, c.parent, value, changed)
		}
	}
	for _, name := range []string{"release_agent", "cgroup.procs", "hugetlb.2MB.current", "freezer.state", ""} {
		if _, _, ok := settingOf(name); ok {
			t.Errorf("%q is a setting", name)
		}
	}
}

// TestOrderOfSettings: what the kernel takes only behind another comes behind it.
func TestOrderOfSettings(t *testing.T) {
	for _, pair := range [][2]string{
		{"cpu.idle", "cpu.shares"}, {"cpu.idle", "cpu.weight"}, {"cpu.cfs_period_us", "cpu.cfs_quota_us"}, {"cpu.rt_period_us", "cpu.rt_runtime_us"},
		{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}, {"cpuset.cpus", "cpuset.cpu_exclusive"}, {"cpuset.mems", "pids.max"},
	} {
		if order(pair[0]) >= order(pair[1]) {
			t.Errorf("%s is not before %s", pair[0], pair[1])
		}
	}
}

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProcessorsThatAreHere: a list is narrowed to what the parent has here.
func TestProcessorsThatAreHere(t *testing.T) {
	for _, c := range []struct{ file, parent, value, want string }{
		{"cpuset.cpus", "0-3", "1,3", "1,3"},
		{"cpuset.cpus", "0-1", "1-7", "1"},
		{"cpuset.cpus", "0-1", "4-7", "0-1"},
		{"cpuset.mems.effective", "0", "0-1", "0"},
	} {
		parent, dir := t.TempDir(), t.TempDir()
		name := "cpuset." + c.file[len("cpuset."):][:4]
		put(t, parent, map[string]string{c.file: c.parent + "\n"})
		put(t, dir, map[string]string{name: ""})
		if err := setOne(dir, parent, &state.CgroupSetting{Name: name, Value: []byte(c.value)}); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != c.want {
			t.Errorf("%q where the parent has %q: %q, want %q", c.value, c.parent, got, c.want)
		}
	}
	for _, text := range []string{"1-", "x", "3-1", "-1", "0-99999999", "0-8000,0-8000,0-8000"} {
		if set, err := parseSet(text); err == nil {
			t.Errorf("%q: %d numbers", text, len(set))
		}
	}
	if err := setOne(t.TempDir(), t.TempDir(), &state.CgroupSetting{Name: "pids.max", Value: []byte("1")}); err == nil {
		t.Error("a setting that this kernel has not was made")
	}
}

// TestControllersThatAreMissing: a container whose children had a controller that it
// has not here is refused, by name.
func TestControllersThatAreMissing(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"cgroup.controllers": "cpu pids\n", "cgroup.subtree_control": ""})
	if err := enable(dir, []string{"memory", "pids"}); err == nil || !strings.Contains(err.Error(), `memory, pids, and has here "cpu, pids"`) {
		t.Error(err)
	}
	if err := enable(dir, []string{"cpu", "pids"}); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); string(got) != "+cpu +pids" {
		t.Errorf("%q", got)
	}
}
