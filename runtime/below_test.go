// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// writableCgroup lets a container make cgroups below its own.
func writableCgroup(spec *specs.Spec) {
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Type == "cgroup" {
			m.Options = []string{"nosuid", "noexec", "nodev"}
			return
		}
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"})
}

// below makes two levels of cgroups in each hierarchy of a version and puts a
// process into the lower ones.
const below = `cd /sys/fs/cgroup
if [ -e cgroup.procs ]; then set .; else set pids freezer memory; fi
sleep 1000 & p=$!
for h; do mkdir -p $h/a/b && echo $p >$h/a/b/cgroup.procs || exit 1; done
echo ready
wait`

// TestCgroupsBelow: processes in cgroups that the container has made are listed,
// paused and killed like all others, and their cgroups end with it, also where it
// has frozen them.
func TestCgroupsBelow(t *testing.T) {
	s := newSandbox(t)
	spec := s.spec("below", sh(below)...)
	writableCgroup(spec)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	o := s.options("below", spec)
	o.Stdio = Stdio{Stdout: w, Stderr: w}
	c := s.start(o)
	w.Close()
	buf := make([]byte, 256)
	n, err := r.Read(buf)
	must(t, err)
	want(t, "output", string(buf[:n]), "ready\n")

	pids, err := c.Pids()
	must(t, err)
	want(t, "number of processes", len(pids), 2)
	dir, file, value := c.CgroupPaths()["freezer"], "freezer.state", "FROZEN"
	if c.CgroupV2() {
		dir, file, value = c.CgroupPaths()[""], "cgroup.freeze", "1"
	}
	child := filepath.Join(dir, "a", "b")
	procs, err := os.ReadFile(filepath.Join(child, "cgroup.procs"))
	must(t, err)
	want(t, "processes below", len(strings.Fields(string(procs))), 1)

	must(t, c.Pause())
	state := func(file string) string {
		text, err := os.ReadFile(filepath.Join(child, file))
		must(t, err)
		return string(text)
	}
	if c.CgroupV2() {
		want(t, "events below", state("cgroup.events"), "populated 1\nfrozen 1\n")
	} else {
		want(t, "state below", state(file), "FROZEN\n")
	}
	must(t, c.Resume())

	must(t, os.WriteFile(filepath.Join(child, file), []byte(value), 0))
	must(t, c.Signal(unix.SIGKILL, true))
	want(t, "status", waitDone(t, c.Init()), 137)
	s.destroy(c)
}
