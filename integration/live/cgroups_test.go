// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestCgroupsMove: the cgroups that a privileged container has made below its own,
// with their limits and processes, are on the other host, and back.
func TestCgroupsMove(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "nest"
	// It sees cgroups of its own only, of which there is no other mount than the spec's.
	w.d(w.alpha, "--privileged", "--mount", "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=rw:nosuid:nodev:noexec", id)
	w.alpha.exec(t, id, "sh", "-ec", `cd /sys/fs/cgroup; [ -d pids ] || exit 7
		for h in pids memory cpu freezer; do mkdir -p $h/app/worker; echo 1 >$h/app/cgroup.procs; done
		sleep 10000 </dev/null >/dev/null 2>&1 & p=$!; for h in pids cpu freezer; do echo $p >$h/app/worker/cgroup.procs; done
		echo 7 >pids/app/worker/pids.max; echo 33554432 >memory/app/memory.limit_in_bytes; echo 50 >cpu/app/worker/cpu.shares; chown 33 pids/app/worker`)
	const look = `cd /sys/fs/cgroup; for h in pids memory cpu freezer; do find $h -mindepth 1 -type d | sort | xargs stat -c '%n %U %a'; done
		cat */app/cgroup.procs */app/worker/cgroup.procs; cat pids/app/worker/pids.max memory/app/memory.limit_in_bytes cpu/app/worker/cpu.shares pids/app/worker/pids.current`
	want := w.alpha.exec(t, id, "sh", "-c", look)
	from, to := w.alpha, w.beta
	for range 2 {
		r := w.mustMove(from, id, to.IP)
		if said := strings.Join(r.Warnings, "\n"); strings.Contains(said, "cgroup") {
			t.Errorf("warnings: %s", said)
		}
		w.one(id, to, from)
		if got := to.exec(t, id, "sh", "-c", look); got != want {
			t.Errorf("before:\n%s\non %s:\n%s", want, to.Name, got)
		}
		from, to = to, from
	}
}

// TestGuestCgroupsAreWarnedOf: a container that can make no cgroups leaves behind what
// somebody else has made below its own, and whoever moves it is told.
func TestGuestCgroupsAreWarnedOf(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "plain"
	w.d(w.alpha, id)
	guest := filepath.Join(w.alpha.freezer(id), "guest")
	if err := os.Mkdir(guest, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(guest, "cgroup.procs"), []byte(w.alpha.pid(id)), 0); err != nil {
		t.Fatal(err)
	}
	r := w.mustMove(w.alpha, id, w.beta.IP)
	if said := strings.Join(r.Warnings, "\n"); !strings.Contains(said, "1 cgroups below the container's own") {
		t.Errorf("warnings: %q", said)
	}
	w.one(id, w.beta, w.alpha)
	procs, err := os.ReadFile(filepath.Join(w.beta.freezer(id), "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(procs)) != w.beta.pid(id) {
		t.Errorf("in the copy's own cgroup are %q: %v", procs, err)
	}
}

// freezer is the directory of a container's cgroup that freezes it.
func (h *host) freezer(id string) string {
	for _, dir := range h.Cgroups() {
		if filepath.Base(dir) != id {
			continue
		}
		for _, file := range []string{"freezer.state", "cgroup.freeze"} {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				return dir
			}
		}
	}
	return ""
}
