// SPDX-License-Identifier: Apache-2.0

// Package itest ties private daemons to tests: it starts them, imports
// images, prints logs when a test fails, and fails a test that leaks.
package itest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/scope"
)

// Runtime names as clients type them.
const (
	Mig  = "io.mig.v1"
	Runc = "io.containerd.runc.v2"
)

// Host is a private daemon that belongs to one test.
type Host struct {
	*daemon.Daemon
	Tree repo.Tree
	t    *testing.T
}

// Start starts a daemon for the test and loads images into it. When the test
// ends, what its containers left behind fails it, and the daemon's log is
// printed if it failed.
func Start(t *testing.T, config daemon.Config, images ...image.Image) *Host {
	t.Helper()
	tree, err := repo.Find()
	if err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Start(t.Context(), tree, config)
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Daemon: d, Tree: tree, t: t}
	t.Cleanup(h.finish)
	h.watch(t)
	for _, i := range images {
		h.Load(t, i)
	}
	return h
}

// Load builds an image, once in this process, and imports it.
func (h *Host) Load(t *testing.T, i image.Image) {
	t.Helper()
	archive, err := archiveOf(i)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Import(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

func (h *Host) finish() {
	h.NoLeaks(h.t)
	if h.t.Failed() {
		h.t.Logf("containerd %s says:\n%s", h.Version, h.Log())
	}
	if err := h.Close(); err != nil {
		h.t.Errorf("end of containerd %s: %v", h.Version, err)
	}
}

// NoLeaks fails t if anything of a container is left. Every container must
// have been deleted.
func (h *Host) NoLeaks(t *testing.T) {
	t.Helper()
	for _, leak := range h.Leaks() {
		t.Errorf("leaked: %s", leak)
	}
}

// Must runs ctr and ends the test if it fails.
func (h *Host) Must(t *testing.T, args ...string) daemon.Result {
	t.Helper()
	result := h.Ctr(t.Context(), args...)
	if err := result.Err(); err != nil {
		t.Fatal(err)
	}
	return result
}

// Remove kills a container's task, waits for its end and deletes both, as far
// as they exist.
func (h *Host) Remove(id string) {
	ctx := context.Background()
	h.Ctr(ctx, "tasks", "delete", "--force", id)
	h.Ctr(ctx, "containers", "delete", id)
}

// EachVersion runs a sub-test on every containerd that is supported.
func EachVersion(t *testing.T, test func(*testing.T, daemon.Version)) {
	for _, version := range daemon.Versions {
		t.Run("containerd-"+string(version), func(t *testing.T) { test(t, version) })
	}
}

// archives keeps the archives of this test process: building one takes
// longer than importing it.
var archives struct {
	sync.Mutex
	scope scope.Scope // found again by Sweep if this process is killed
	paths map[string]string
}

func archiveOf(i image.Image) (string, error) {
	archives.Lock()
	defer archives.Unlock()
	if path := archives.paths[i.Name]; path != "" {
		return path, nil
	}
	if archives.paths == nil {
		s, err := scope.New()
		if err != nil {
			return "", err
		}
		archives.scope, archives.paths = s, map[string]string{}
	}
	path, err := i.Write(archives.scope.Dir)
	if err != nil {
		return "", err
	}
	archives.paths[i.Name] = path
	return path, nil
}

// Main runs a package's tests and removes the archives. TestMain calls it.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has to clean up itself; it returns the exit
// status.
func Run(m *testing.M) int {
	repeat := repeatFailures()
	code := m.Run()
	repeat()
	if archives.paths != nil {
		if err := archives.scope.Destroy(); err != nil {
			fmt.Fprintln(os.Stderr, "remove the image archives:", err)
			code = max(code, 1)
		}
	}
	return code
}
