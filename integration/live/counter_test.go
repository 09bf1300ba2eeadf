// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// counter is the image of a Go server that proves what it holds.
func counter(tool string) image.Image {
	return image.Image{Name: "mig.test/counter:1", Command: []string{"/counter"}, Extra: map[string]string{"/counter": tool}}
}

var asks atomic.Int64

// execID is one that was not used before.
func execID() string { return fmt.Sprint("exec", asks.Add(1)) }

// ask returns what the counter on a host says: "KEY VALUE" pairs.
func (h *host) ask(ctx context.Context, id string) (map[string]string, error) {
	r := h.d.Ctr(ctx, "tasks", "exec", "--exec-id", execID(), id, "/counter", "ask")
	if err := r.Err(); err != nil {
		return nil, err
	}
	said := map[string]string{}
	f := strings.Fields(r.Stdout)
	for i := 0; i+1 < len(f); i += 2 {
		said[f[i]] = f[i+1]
	}
	return said, nil
}

// startCounter runs a counter on alpha and waits for its first word.
func (w *world) startCounter(id string) map[string]string {
	w.t.Helper()
	return w.counts(id, func(i image.Image) { w.run(w.alpha, i, id) })
}

// startCounterOutside is startCounter of one with a network, that serves outsiders.
func (w *world) startCounterOutside(id string) map[string]string {
	w.t.Helper()
	return w.counts(id, func(i image.Image) {
		w.bridged()
		for _, h := range []*host{w.alpha, w.beta} {
			w.must(h.Run(unplug))
		}
		w.runPod(i, id, "/counter", "outside")
	})
}

// unplug removes the interfaces of a container that has ended, as who puts them in (CNI)
// does: the kernel keeps its namespace, with its address, for a minute after the last FIN.
const unplug = `ip -o link show master br0 | sed 's/^[0-9]*: \([^:@]*\).*/\1/' | grep -v '^eth0$' | while read link; do ip link del "$link"; done`

// counts has a counter started, and waits for its first word.
func (w *world) counts(id string, run func(image.Image)) map[string]string {
	w.t.Helper()
	i := counter(w.alpha.d.Tree.Tool("counter"))
	w.alpha.d.Load(w.t, i)
	run(i)
	var said map[string]string
	waitFor(w.t, migdReady, id+" answers", func() bool {
		var err error
		said, err = w.alpha.ask(w.t.Context(), id)
		return err == nil
	})
	return said
}

// same checks that a counter is the one it was.
func (w *world) same(h *host, id string, was map[string]string) {
	w.t.Helper()
	now, err := h.ask(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if now["data"] == "" || now["data"] != was["data"] {
		w.t.Errorf("%s on %s says %v, it was %v", id, h.Name, now, was)
	}
}

// processes counts the counters of the whole machine that belong to the lab.
func (w *world) processes() (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, f := range files {
		dir := filepath.Dir(f)
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		status, _ := os.ReadFile(filepath.Join(dir, "status"))
		exe, err := os.Readlink(f)
		if err == nil && exe == "/counter" && strings.Contains(string(cgroup), w.lab.Name) && !strings.Contains(string(status), "State:\tZ") {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

// TestCounterThereAndBack: a Go server with threads, timers and a listening
// socket moves back and forth between a containerd 2.4 and one of 1.6.
func TestCounterThereAndBack(t *testing.T) {
	w := newWorld(t, daemon.V16)
	const id = "counter"
	was := w.startCounter(id)
	from, to := w.alpha, w.beta
	for range 4 {
		w.mustMove(from, id, to.IP)
		w.one(id, to, from)
		if p := w.processes(); len(p) != 1 {
			t.Fatalf("%d copies: %v", len(p), p)
		}
		w.same(to, id, was)
		from, to = to, from
	}
}

// switches are the context switches so far of a container's counters, by pid
// (proc_pid_status(5)).
func (w *world) switches(id string) map[string]int {
	found := map[string]int{}
	for _, pid := range w.processes() {
		dir := filepath.Join("/proc", pid)
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if !strings.Contains(string(cgroup), "/"+id+"\n") {
			continue
		}
		threads, _ := filepath.Glob(filepath.Join(dir, "task/*/status"))
		for _, file := range threads {
			status, _ := os.ReadFile(file)
			for line := range strings.Lines(string(status)) {
				var n int
				if _, err := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &n); err == nil {
					found[pid] += n
				}
			}
		}
	}
	return found
}
