// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"math/rand/v2"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/workload"
)

// TestCutCable: the destination's cable is out at any moment of a move, for
// longer than either side waits, and in again. One copy runs then.
func TestCutCable(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	on, off := w.alpha, w.beta
	within := w.warmUp(id)
	for range 2 {
		done := make(chan error, 1)
		go func() {
			_, err := on.move(context.Background(), id, off.IP)
			done <- err
		}()
		time.Sleep(rand.N(within)) // the moment is the point
		if err := off.Disconnect(); err != nil {
			t.Fatal(err)
		}
		// Before COMMIT both sides give up by themselves, afterwards they wait.
		var err error
		over := false
		select {
		case err = <-done:
			over = true
		case <-time.After(40 * time.Second):
		}
		if cerr := off.Connect(); cerr != nil {
			t.Fatal(cerr)
		}
		if !over {
			err = <-done
		}
		t.Logf("mig migrate says %v", err)
		on, off = w.settled(id)
		off.d.Remove(id) // if it was decided without its coordinator
		w.same(on, id, was)
		w.clean(off, "lease mig-")
	}
	w.reachable(on, off)
	w.mustMove(on, id, off.IP)
	w.one(id, off, on)
	w.same(off, id, was)
}

// reachable waits until a host reaches another whose cable is in again. One that was
// not found while it was out is looked for anew only when the kernel has given up the
// last search.
func (w *world) reachable(from, to *host) {
	w.t.Helper()
	waitFor(w.t, settleWithin, "the hosts reach each other", func() bool {
		return from.Command(w.t.Context(), "busybox", "ping", "-c1", "-W1", to.IP).Run() == nil
	})
}

// megabytes is an unfinished blob of ours of at least one, as ctr shows it.
var megabytes = regexp.MustCompile(`mig-sha256:\S+\s+[0-9.]+\s?[Mm]i?B`)

// TestImageCopyGoesOn: a copy of the image that was cut off goes on where it
// ended.
func TestImageCopyGoesOn(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	const id = "redis"
	w.run(w.alpha, image.Redis, id)
	if err := (workload.Redis{Daemon: w.alpha.d.Daemon, ID: id}).Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	defer func() { t.Log("the first attempt says", said.String()) }()
	cmd := w.alpha.migrate(t.Context(), "--bandwidth", "8MB", id, w.beta.IP) // 20 MB
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, migdReady, "some of the image is copied", func() bool {
		return megabytes.MatchString(w.beta.d.Must(t, "content", "active").Stdout)
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	waitFor(t, migdReady, "the destination has noticed", func() bool { return strings.Contains(w.beta.migd.says(), "move failed") })
	whole := w.mustMove(w.alpha, "--keep", id, w.beta.IP).ImageBytes
	w.alpha.d.Remove(id)
	w.beta.d.Remove(id)
	size := w.imageSize(w.alpha, image.Redis.Name)
	if whole == 0 || whole > size-1<<20 {
		t.Errorf("the second attempt has copied %d bytes of %d", whole, size)
	}
	w.clean(w.beta)
}

// imageSize is the sum of the blobs of a host, which has one image.
func (w *world) imageSize(h *host, _ string) (sum uint64) {
	w.t.Helper()
	for line := range strings.Lines(h.d.Must(w.t, "content", "ls", "--quiet").Stdout) {
		b := h.d.Must(w.t, "content", "get", strings.TrimSpace(line)).Stdout
		sum += uint64(len(b))
	}
	return sum
}

// TestPersonEndsMove: ctrl-C and mig abort undo a move that is not committed.
func TestPersonEndsMove(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "counter"
	was := w.startCounter(id)
	for name, end := range map[string]func(t *testing.T, pid int){
		"ctrl-C": func(t *testing.T, pid int) { _ = syscall.Kill(pid, syscall.SIGINT) },
		"mig abort": func(t *testing.T, _ int) {
			out, err := w.alpha.Command(t.Context(), w.alpha.d.Tree.Bin("mig"), "abort", w.alpha.underWay(t)).CombinedOutput()
			if err != nil {
				t.Errorf("mig abort: %v: %s", err, out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var errs bytes.Buffer
			cmd := w.alpha.migrate(t.Context(), "--bandwidth", "2MB", "--compress", "none", id, w.beta.IP) // some seconds
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, migdReady, "the move is under way", func() bool { return w.alpha.underWay(t) != "" })
			end(t, cmd.Process.Pid)
			if err := cmd.Wait(); err == nil {
				t.Error("mig migrate is content")
			}
			if st := w.alpha.status(id); st != "RUNNING" {
				t.Fatalf("it is %q: %s", st, errs.String())
			}
			w.same(w.alpha, id, was)
			w.clean(w.beta, "lease mig-")
		})
	}
}

// underWay is the request of a move that runs.
func (h *host) underWay(t *testing.T) string {
	t.Helper()
	out, err := h.Command(t.Context(), h.d.Tree.Bin("mig"), "status").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "move out") && strings.Contains(line, "running") {
			return strings.Fields(line)[0]
		}
	}
	return ""
}
