// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestDestinationOutOfMemory: the containers of the destination may have less
// memory, all together, than the one that comes. The kernel kills it there; the
// original runs on, and moves when there is enough.
func TestDestinationOutOfMemory(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	set := w.limitMemory(w.beta)
	set("6M") // the counter holds 8 MB of data
	r, err := w.alpha.move(t.Context(), id, w.beta.IP)
	if err == nil {
		t.Fatalf("it has moved: %+v", r)
	}
	t.Log("mig migrate says", err)
	if !strings.Contains(err.Error(), "for want of memory") {
		t.Error("it does not say that the memory was too little")
	}
	if on, _ := w.settled(id); on != w.alpha {
		t.Fatalf("it runs on %s", on.Name)
	}
	w.same(w.alpha, id, was)
	w.clean(w.beta, "lease mig-")
	set("max")
	w.mustMove(w.alpha, id, w.beta.IP)
	w.one(id, w.beta, w.alpha)
	w.same(w.beta, id, was)
}

// limitMemory makes the cgroup in which a host's containerd puts all containers
// of the lab, and returns what limits it.
func (w *world) limitMemory(h *host) (set func(string)) {
	w.t.Helper()
	dir, file := filepath.Join("/sys/fs/cgroup/memory", w.lab.Name, h.Name, w.lab.Name), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		dir, file = filepath.Join("/sys/fs/cgroup", w.lab.Name, h.Name, w.lab.Name), "memory.max"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return func(limit string) {
		if limit == "max" && file == "memory.limit_in_bytes" {
			limit = "-1"
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(limit), 0); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestDestinationDiskFills: the destination's disk is full before all files have
// come. The original runs on, with its files, and moves when there is room.
func TestDestinationDiskFills(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	disk := filepath.Join(w.beta.d.Dir, "root")
	w.must(w.beta.d.Stop(syscall.SIGTERM))
	w.must(w.beta.Run("mount -t tmpfs -o size=96m tmpfs " + disk))
	w.must(w.beta.d.Restart(t.Context(), syscall.SIGTERM))
	const id = "writer"
	w.d(w.alpha, id)
	w.alpha.exec(t, id, "sh", "-c", "head -c 12000000 /dev/urandom >/data; md5sum /data >/sum")
	pid := w.alpha.pid(id)
	done := w.alpha.start("--bandwidth", "2MB", "--compress", "none", id, w.beta.IP)
	waitFor(t, migdReady, "the move is under way", func() bool { return w.alpha.underWay(t) != "" })
	_ = w.beta.Run(fmt.Sprintf("cat /dev/zero >%s/filler", disk)) // until there is no room
	said := <-done
	if said.err == nil {
		t.Fatalf("it has moved: %+v", said.report)
	}
	t.Log("mig migrate says", said.err)
	if !strings.Contains(said.err.Error(), "no space left on device") {
		t.Error("it does not say that the disk is full")
	}
	if now := w.alpha.pid(id); now != pid || w.alpha.status(id) != "RUNNING" {
		t.Errorf("pid %s was %s, the task is %q", now, pid, w.alpha.status(id))
	}
	w.must(w.beta.Run(fmt.Sprintf("rm %s/filler", disk)))
	w.clean(w.beta, "lease mig-")
	w.mustMove(w.alpha, id, w.beta.IP)
	w.one(id, w.beta, w.alpha)
	if got := w.beta.exec(t, id, "md5sum", "-c", "/sum"); !strings.Contains(got, "OK") {
		t.Errorf("the file has changed: %s", got)
	}
}

// must fails the test on an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
