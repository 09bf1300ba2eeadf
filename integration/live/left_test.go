// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// left names everything of containers, and of moves, that is on the host.
func (h *host) left() (found []string) {
	lines := func(what string, args ...string) {
		r := h.d.Ctr(context.Background(), args...)
		if err := r.Err(); err != nil {
			found = append(found, err.Error())
		}
		for line := range strings.FieldsSeq(r.Stdout) {
			found = append(found, what+" "+line)
		}
	}
	lines("task", "tasks", "ls", "-q")
	lines("container", "containers", "ls", "-q")
	lines("lease", "leases", "ls", "-q")
	for line := range strings.Lines(h.d.Ctr(context.Background(), "snapshots", "--snapshotter", h.d.Snapshotter, "ls").Stdout) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == "Active" {
			found = append(found, "snapshot "+f[0])
		}
	}
	for line := range strings.Lines(h.d.Ctr(context.Background(), "images", "ls").Stdout) {
		if strings.Contains(line, "io.mig/incoming") {
			found = append(found, "image on its way "+line)
		}
	}
	for _, m := range h.Mounts(filepath.Join(h.d.Dir, "state")) {
		found = append(found, "mount "+m)
	}
	for _, c := range h.Cgroups() {
		found = append(found, "cgroup "+c)
	}
	for _, pattern := range []string{"/run/migd/incoming/*", "/run/containerd/s/*"} {
		files, _ := filepath.Glob(h.Path(pattern))
		for _, f := range files {
			found = append(found, "file "+f)
		}
	}
	return append(found, h.shims()...)
}

// shims are the shims of this host's containerd, whatever they are at.
func (h *host) shims() (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		line := strings.ReplaceAll(string(b), "\x00", " ")
		if err == nil && strings.Contains(line, "containerd-shim-mig-v1") && strings.Contains(line, "-address "+h.d.Address+" ") {
			found = append(found, fmt.Sprintf("process %s: %s", filepath.Base(filepath.Dir(f)), line))
		}
	}
	return found
}

// clean checks that nothing is left on a host, after what is just ending. What
// begins like one of except may be.
func (w *world) clean(h *host, except ...string) {
	w.t.Helper()
	var found []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		found = slices.DeleteFunc(h.left(), func(s string) bool {
			return slices.ContainsFunc(except, func(e string) bool { return strings.HasPrefix(s, e) })
		})
		if len(found) == 0 {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	for _, f := range found {
		w.t.Errorf("left on %s: %s", h.Name, f)
	}
}

// one checks that a container runs on one host and that nothing of it is left
// on the other.
func (w *world) one(id string, on, off *host) {
	w.t.Helper()
	if st := on.status(id); st != "RUNNING" {
		w.t.Fatalf("on %s %s is %q", on.Name, id, st)
	}
	w.clean(off)
}

// status is the state of a task as ctr prints it; empty where there is none.
func (h *host) status(id string) string {
	for line := range strings.Lines(h.d.Ctr(context.Background(), "tasks", "ls").Stdout) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	return ""
}
