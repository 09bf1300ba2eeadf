// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// ownCgroups mounts a container's own cgroups writable, and shows it no others.
func ownCgroups(s *specs.Spec) {
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "rw"}})
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
}

// unifiedHere: the machine that containers see has cgroup version 2 only.
func unifiedHere() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// nest is what a container does that supervises others: it leaves its own cgroup,
// and makes one for them that it gives away.
const nest = `cd /sys/fs/cgroup; set .; [ -e cgroup.procs ] || set pids freezer systemd
for h; do (cd $h && mkdir init.scope service service/inner && echo 1 >init.scope/cgroup.procs && chown 33:44 service service/cgroup.procs) || exit 1; done`

// nested shows it.
const nested = `cd /sys/fs/cgroup; set .; [ -e cgroup.procs ] || set pids freezer systemd
for h; do cd $h; find . -mindepth 1 -type d | sort | xargs stat -c '%n %U:%G %a' . service/cgroup.procs; cat init.scope/cgroup.procs; cd - >/dev/null; done; sed 's/^[0-9]*//' /proc/1/cgroup`

// TestCgroups: what a container has made below its own cgroup is there after a
// checkpoint and after a restore, sessions can be started in it, and nothing is left
// when it ends.
func TestCgroups(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := variant{spec: []oci.SpecOpts{editSpec(ownCgroups)}}
	b := h.run(t, "nested", v)
	b.lives("at first")
	b.exec("sh", "-c", nest)
	before := b.exec("sh", "-c", nested)
	dir := b.checkpoint()
	b.lives("after its checkpoint")
	if after := b.exec("sh", "-c", nested); after != before {
		t.Errorf("before:\n%s\nafter the checkpoint:\n%s", before, after)
	}
	own := below(b.pid)
	if len(own) == 0 {
		t.Error("it has no cgroups of its own")
	}
	b.remove()
	for _, dir := range own {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	r := h.restore(t, "nested-again", v, dir)
	r.lives("after the restore")
	if after := r.exec("sh", "-c", nested); after != before {
		t.Errorf("before:\n%s\nafter the restore:\n%s", before, after)
	}
	r.remove()
}

// below are the directories of the cgroups that a process is in.
func below(pid int) (dirs []string) {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		mount := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(f[1], "name="))
		if f[1] == "" && !unifiedHere() {
			mount = "/sys/fs/cgroup/unified"
		}
		if strings.HasSuffix(f[2], "/init.scope") {
			dirs = append(dirs, filepath.Join(mount, f[2]))
		}
	}
	return dirs
}

// TestCgroupsOfAnother: what somebody else has made below the cgroup of a container
// that may make none is not there after a restore, and the processes are.
func TestCgroupsOfAnother(t *testing.T) {
	h := startHost(t, daemon.V24)
	b := h.run(t, "visited", variant{})
	b.lives("at first")
	dir := strings.TrimSuffix(cgroupOf(t, b.pid, "freezer"), "/") + "/guest"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(b.pid)), 0); err != nil {
		t.Fatal(err)
	}
	image := b.checkpointExit()
	b.remove()
	r := h.restore(t, "visited-again", variant{}, image)
	r.lives("after the restore")
	if now := cgroupOf(t, r.pid, "freezer"); strings.HasSuffix(now, "/guest") {
		t.Errorf("its process is in %s", now)
	}
	r.remove()
}

// cgroupOf is where a process is, in the hierarchy of a controller of version 1 or in
// that of version 2.
func cgroupOf(t *testing.T, pid int, controller string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if unifiedHere() && f[1] == "" {
			return filepath.Join("/sys/fs/cgroup", f[2])
		}
		if !unifiedHere() && f[1] == controller {
			return filepath.Join("/sys/fs/cgroup", controller, f[2])
		}
	}
	t.Fatalf("no cgroup of %s in %s", controller, text)
	return ""
}
