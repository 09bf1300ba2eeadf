// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// facts is what the kernel says of a container's init, in words that do not
// depend on which container of a variant it is.
type facts map[string]string

// statusFields of /proc/PID/status that a restored process shares with its
// original (proc_pid_status(5)).
var statusFields = []string{
	"Name", "Umask", "Uid", "Gid", "Groups", "NStgid", "NSpid", "NSpgid", "NSsid", "Threads", "SigBlk", "SigIgn", "SigCgt",
	"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "THP_enabled",
	"Speculation_Store_Bypass", "SpeculationIndirectBranch", "CoreDumping",
}

func (b *box) facts() facts {
	b.t.Helper()
	f := facts{}
	proc := func(name string) string { return filepath.Join("/proc", fmt.Sprint(b.pid), name) }
	text := func(name string) string {
		data, err := os.ReadFile(proc(name))
		if err != nil {
			b.t.Fatal(err)
		}
		return string(data)
	}
	link := func(name string) string {
		s, err := os.Readlink(proc(name))
		if err != nil {
			b.t.Fatal(err)
		}
		return s
	}
	for line := range strings.Lines(text("status")) {
		key, value, _ := strings.Cut(line, ":")
		if slices.Contains(statusFields, key) {
			f["status "+key] = lastOf(key, strings.Join(strings.Fields(value), " "))
		}
	}
	for _, name := range []string{"limits", "oom_score_adj", "coredump_filter", "cmdline", "environ", "uid_map", "gid_map", "personality", "loginuid", "setgroups"} {
		f[name] = text(name)
	}
	for _, name := range []string{"cwd", "exe", "root"} {
		f[name] = link(name)
	}
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		f["namespace "+ns] = "own"
		if own, err := os.Readlink("/proc/self/ns/" + ns); err == nil && own == link("ns/"+ns) {
			f["namespace "+ns] = "the host's"
		}
	}
	f["mounts"] = b.mounts(text("mountinfo"))
	stat := strings.Fields(text("stat")[strings.LastIndexByte(text("stat"), ')'):])
	for name, field := range map[string]int{"tty_nr": 7, "priority": 18, "nice": 19, "exit_signal": 38, "rt_priority": 40, "policy": 41} {
		f["stat "+name] = stat[field-2] // proc_pid_stat(5) counts from 1, the name is field 2
	}
	b.descriptors(f)
	b.cgroups(f, text("cgroup"))
	return f
}

// lastOf keeps the innermost of the ids that the kernel lists by namespace, and
// only whether there is one of the container's own for those before.
func lastOf(key, value string) string {
	if !strings.HasPrefix(key, "NS") {
		return value
	}
	ids := strings.Fields(value)
	return fmt.Sprintf("%s in %d namespaces", ids[len(ids)-1], len(ids))
}

// snapshotDir is where a snapshotter or a bundle puts one container's files.
var snapshotDir = regexp.MustCompile(`(snapshots/|volatile-)\d+`)

// anonymous replaces what differs between two containers of one variant.
func (b *box) anonymous(s string) string {
	s = strings.ReplaceAll(s, b.id, "ID")
	return snapshotDir.ReplaceAllString(s, "${1}N")
}

// mounts keeps of mountinfo what does not number things:
// root, mount point, options, propagation, type, super options.
func (b *box) mounts(info string) string {
	var out []string
	for line := range strings.Lines(info) {
		left, right, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(left), strings.Fields(right)
		propagation := strings.Join(fields[6:], " ")
		propagation = regexp.MustCompile(`\d+`).ReplaceAllString(propagation, "N")
		options := super[2]
		if super[0] == "overlay" {
			options = "" // the snapshots' directories
		}
		out = append(out, b.anonymous(strings.Join([]string{fields[3], fields[4], fields[5], propagation, super[0], options}, " ")))
	}
	return strings.Join(out, "\n")
}

var inode = regexp.MustCompile(`\[\d+\]`)

// descriptors names what each descriptor leads to. A server may close one while it is
// looked at: its end of a connection.
func (b *box) descriptors(f facts) {
	dir := fmt.Sprintf("/proc/%d/fd", b.pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			b.t.Fatal(err)
		}
		f["fd "+e.Name()] = b.anonymous(inode.ReplaceAllString(to, "[N]"))
	}
}

// cgroupFiles are the limits that tests set or defaults imply.
var cgroupFiles = map[string][]string{
	"memory":  {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "memory.oom_control"},
	"cpu":     {"cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"},
	"cpuset":  {"cpuset.cpus", "cpuset.mems"},
	"pids":    {"pids.max"},
	"devices": {"devices.list"},
	"freezer": {"freezer.self_freezing"},
	"blkio":   {"blkio.throttle.read_bps_device"},
}

// cgroups reads the limits of each hierarchy, as this machine mounts them.
func (b *box) cgroups(f facts, list string) {
	for line := range strings.Lines(list) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		controller, dir := parts[1], parts[2]
		f["cgroup "+controller] = b.anonymous(dir)
		for _, name := range cgroupFiles[controller] {
			data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, dir, name))
			if err == nil {
				f["cgroup "+name] = strings.TrimSpace(string(data))
			}
		}
	}
}

// same fails the test where something the kernel says has changed.
func (f facts) same(t *testing.T, when string, after facts) {
	t.Helper()
	if diff := cmp.Diff(f, after); diff != "" {
		t.Errorf("%s /proc differs (-before +after):\n%s", when, diff)
	}
}

// copied is same for a copy, which lives in a time namespace of its own: in it its
// clocks go on.
func (f facts) copied(t *testing.T, when string, after facts) {
	t.Helper()
	f = maps.Clone(f)
	f["namespace time"] = "own"
	f.same(t, when, after)
}
