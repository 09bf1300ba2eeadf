// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"

	"github.com/io-mig/mig/integration/internal/daemon"
)

func (b *box) pause() account {
	b.t.Helper()
	if err := b.task.Pause(b.host.ctx()); err != nil {
		b.t.Fatal(err)
	}
	return b.peek()
}

// TestPaused: a paused container takes not one step during its checkpoints,
// stays paused, and its copy goes on from the same one.
func TestPaused(t *testing.T) {
	h := startHost(t, daemon.V24)
	b := h.run(t, "sleeper", variant{})
	b.lives("at first")
	was := b.pause()
	var dir string
	for range 10 {
		dir = b.checkpoint()
		if is := b.peek(); is != was {
			t.Fatalf("it ran: %+v, then %+v", was, is)
		}
		if got := b.status(); got != client.Paused {
			t.Fatalf("it is %s", got)
		}
	}
	r := h.restore(t, "sleeper-again", variant{}, dir)
	// The copy runs: what was paused was the original's task.
	r.await(client.Running)
	if a := r.lives("after the restore"); a.Beats < was.Beats || a.Beats > was.Beats+100000 {
		t.Errorf("%d beats after %d", a.Beats, was.Beats)
	}
	if is := b.peek(); is != was {
		t.Errorf("the paused original ran beside its copy: %+v, then %+v", was, is)
	}
	if err := b.task.Resume(h.ctx()); err != nil {
		t.Fatal(err)
	}
	b.lives("after its resume")
	b.remove()
	r.remove()
}

// TestPausedExit: it ends without another step.
func TestPausedExit(t *testing.T) {
	h := startHost(t, daemon.V24)
	b := h.run(t, "sleeper", variant{})
	b.lives("at first")
	was := b.pause()
	dir := b.checkpointExit()
	b.remove()
	r := h.restore(t, "sleeper-again", variant{}, dir)
	if a := r.lives("after the restore"); a.Beats < was.Beats {
		t.Errorf("%d beats after %d", a.Beats, was.Beats)
	}
	r.remove()
}

// TestGenerations: each copy is made of the one before.
func TestGenerations(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := variant{args: []string{"deep"}}
	b := h.run(t, "generation-0", v)
	b.lives("at first")
	before := b.facts()
	beats := uint64(0)
	for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
		beats = b.peek().Beats
		dir := b.checkpointExit()
		b.remove()
		b = h.restore(t, "generation-"+id, v, dir)
		if a := b.lives("generation " + id); a.Beats < beats {
			t.Fatalf("generation %s: %d beats after %d", id, a.Beats, beats)
		}
		got := b.facts()
		before.copied(t, "in generation "+id, got)
	}
	b.remove()
}

// TestParallel: eight checkpoints at once, then eight restores at once.
func TestParallel(t *testing.T) {
	h := startHost(t, daemon.V24)
	const many = 8
	boxes, dirs := make([]*box, many), make([]string, many)
	for i := range boxes {
		boxes[i] = h.run(t, "one-of-many-"+string(rune('a'+i)), variant{})
	}
	for _, b := range boxes {
		b.lives("at first")
	}
	for i := range dirs {
		dirs[i] = t.TempDir() + "/image"
	}
	atOnce(t, many, func(i int) error { return boxes[i].tryCheckpoint(dirs[i], false) })
	for _, b := range boxes {
		b.lives("after eight checkpoints")
		b.remove()
	}
	copies := make([]*box, many)
	atOnce(t, many, func(i int) (err error) {
		if copies[i], err = h.create(t, "copy-"+string(rune('a'+i)), variant{}, dirs[i]); err == nil {
			err = copies[i].start()
		}
		return err
	})
	for _, b := range copies {
		b.lives("after eight restores")
		b.remove()
	}
}

// atOnce runs n functions at the same time.
func atOnce(t *testing.T, n int, f func(int) error) {
	t.Helper()
	start, errs := make(chan struct{}), make(chan error)
	for i := range n {
		go func() { <-start; errs <- f(i) }()
	}
	begun := time.Now()
	close(start)
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	t.Logf("%d at once took %v", n, time.Since(begun).Round(time.Millisecond))
}
