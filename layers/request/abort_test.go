// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"
)

// TestAbort cancels a request through its store, as another process does.
func TestAbort(t *testing.T) {
	m := testManager(t, testEngine(t))
	h, err := m.Submit(context.Background(), testJob("wait"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenStore(m.opts.Dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := other.Abort(h.ID()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := h.Wait(ctx); !errors.Is(err, context.Canceled) || ctx.Err() != nil {
		t.Errorf("the outcome is %v", err)
	}
	st, err := other.Read(h.ID())
	if err != nil || st.Phase != Canceled {
		t.Errorf("status %+v, %v", st, err)
	}
	if err := other.Abort(h.ID()); !errors.Is(err, ErrEnded) {
		t.Errorf("a second abort: %v", err)
	}
	if _, err := os.Lstat(other.abortFile(h.ID())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

func TestAbortRefused(t *testing.T) {
	s := testStore(t)
	put(t, s, "lost", Active, Process{Pid: 1 << 22, Start: 1})
	if err := s.Abort("lost"); !errors.Is(err, ErrEnded) {
		t.Errorf("a request without a keeper: %v", err)
	}
	if err := s.Abort("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such request: %v", err)
	}
	if err := s.Abort("../x"); err == nil {
		t.Error("an id with a path was taken")
	}
}

// TestLeftAbortsArePruned: a keeper that was killed removes nothing.
func TestLeftAbortsArePruned(t *testing.T) {
	s := testStore(t)
	put(t, s, "lives", Active, self())
	put(t, s, "died", Active, Process{Pid: 1 << 22, Start: 1})
	for _, id := range []string{"lives", "died", "unknown"} {
		if err := os.WriteFile(s.abortFile(id), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.prune(10, time.Now().Add(2*orphanAge)); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"lives": true, "died": false, "unknown": false} {
		if s.abortAsked(id) != want {
			t.Errorf("the file of %s is there: %v, want %v", id, !want, want)
		}
	}
}
