// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/internal/hugepages"
	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/scope"
)

// harness is what all programs share.
type harness struct {
	scope   scope.Scope
	bundles driver.Bundles
	mig     *driver.Mig
	list    []program
}

var shared *harness

func TestMain(m *testing.M) {
	h, err := newHarness()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared = h
	code := m.Run()
	if err := h.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func newHarness() (*harness, error) {
	tree, err := repo.Find()
	if err != nil {
		return nil, err
	}
	s, err := scope.New()
	if err != nil {
		return nil, err
	}
	h := &harness{scope: s}
	for _, dir := range []string{"bundles", "images", "tmp", "build"} {
		if err := os.Mkdir(filepath.Join(s.Dir, dir), 0o711); err != nil {
			return nil, errors.Join(err, s.Destroy())
		}
	}
	binary, err := build(filepath.Join(s.Dir, "build"))
	if err == nil {
		h.list, err = list(binary)
	}
	if err != nil {
		return nil, errors.Join(err, s.Destroy())
	}
	h.bundles = driver.Bundles{Dir: filepath.Join(s.Dir, "bundles"), Runc: tree.Tool("runc"), Program: binary, Cgroup: "/" + s.Name}
	h.mig = &driver.Mig{
		Program: tree.Bin("containerd-shim-mig-v1"), Namespace: s.Name,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + filepath.Join(s.Dir, "tmp"), s.Mark()},
	}
	if err := h.mig.Open(s.Dir); err != nil {
		return nil, errors.Join(err, s.Destroy())
	}
	return h, nil
}

func (h *harness) close() error {
	errs := []error{h.mig.Close()}
	for _, leak := range h.scope.Leaks() {
		errs = append(errs, errors.New("leaked: "+leak))
	}
	return errors.Join(append(errs, h.scope.Destroy())...)
}

// TestPrograms runs every program as everybody who can run it. MIG_PROGRAM_USERS
// chooses among root, user and userns; by default all of them.
func TestPrograms(t *testing.T) {
	chosen := os.Getenv("MIG_PROGRAM_USERS")
	// Each of these programs has less than ten; a few run at the same time, and one
	// that has ended gives its pages back a little later.
	lent := hugepages.Lend(t, 64)
	if lent == nil {
		if err := hugepages.LetGroup(t, hostID); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range []user{asRoot, asUser, asMapped} {
		if chosen != "" && !strings.Contains(","+chosen+",", ","+u.name+",") {
			continue
		}
		for _, p := range shared.list {
			if !p.fits(u) {
				continue
			}
			t.Run(p.name+"/"+u.name, func(t *testing.T) {
				t.Parallel()
				if p.needs&needsHugePages != 0 && lent != nil {
					t.Skip(lent)
				}
				if p.refused != "" {
					shared.refuses(t, p, u)
				} else {
					shared.carries(t, p, u)
				}
			})
		}
	}
}

// timeout bounds one program's way.
const timeout = 90 * time.Second

// carries takes a program through all that package comment draws.
func (h *harness) carries(t *testing.T, p program, u user) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	first := h.run(ctx, t, p, u)
	one, two := h.image(), h.image()
	beside := h.snapshot(ctx, t, first, one, p.needs&changesFiles != 0)
	h.good(ctx, t, first)
	h.restore(ctx, t, beside, one)
	last := h.checkpoint(ctx, t, beside, two, false)
	h.ended(ctx, t, beside)
	h.restore(ctx, t, last, two)
	h.good(ctx, t, last)
}

// refuses holds mig to a refusal that harms nobody.
func (h *harness) refuses(t *testing.T, p program, u user) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c := h.run(ctx, t, p, u)
	_, err := h.mig.Checkpoint(ctx, c, h.image(), true)
	if err == nil || !strings.Contains(err.Error(), p.refused) {
		t.Errorf("the checkpoint says %v, want a refusal with %q", err, p.refused)
	}
	h.good(ctx, t, c)
}

func (h *harness) image() string {
	return filepath.Join(h.scope.Dir, "images", strconv.FormatInt(serial.Add(1), 10))
}

// run starts a program and waits until it is ready.
func (h *harness) run(ctx context.Context, t *testing.T, p program, u user) *driver.Container {
	t.Helper()
	c := h.container(t, p, u)
	if err := h.mig.Run(ctx, c); err != nil {
		t.Fatal(err)
	}
	h.removeLater(t, c)
	h.readies(t, c, p.name)
	return c
}

// readies waits until a program says that it is ready.
func (h *harness) readies(t *testing.T, c *driver.Container, name string) {
	t.Helper()
	for end := time.Now().Add(timeout / 2); ; time.Sleep(2 * time.Millisecond) {
		switch said := says(t, c); {
		case said == "ready\n":
			return
		case strings.Contains(said, "\n") || time.Now().After(end):
			t.Fatalf("%s is not ready, it says: %s", name, said)
		}
	}
}

// checkpoint saves a container and returns the bundle of its successor, with
// what its root held then.
func (h *harness) checkpoint(ctx context.Context, t *testing.T, c *driver.Container, image string, leave bool) *driver.Container {
	t.Helper()
	if _, err := h.mig.Checkpoint(ctx, c, image, leave); err != nil {
		t.Fatalf("checkpoint: %v\nthe program says: %s", err, says(t, c))
	}
	return h.successor(t, c)
}

// snapshot is a checkpoint of a container that runs on.
func (h *harness) snapshot(ctx context.Context, t *testing.T, c *driver.Container, image string, paused bool) *driver.Container {
	t.Helper()
	if !paused {
		return h.checkpoint(ctx, t, c, image, true)
	}
	if err := h.mig.Pause(ctx, c); err != nil {
		t.Fatal(err)
	}
	next := h.checkpoint(ctx, t, c, image, true)
	if err := h.mig.Resume(ctx, c); err != nil {
		t.Fatal(err)
	}
	return next
}

func (h *harness) restore(ctx context.Context, t *testing.T, c *driver.Container, image string) {
	t.Helper()
	if _, err := h.mig.Restore(ctx, c, image); err != nil {
		t.Fatalf("restore: %v", err)
	}
	h.removeLater(t, c)
}

// ended waits for the end that a checkpoint brings, and removes the container.
func (h *harness) ended(ctx context.Context, t *testing.T, c *driver.Container) {
	t.Helper()
	status, err := h.mig.Wait(ctx, c)
	if err != nil || status != 128+uint32(syscall.SIGKILL) {
		t.Fatalf("after a checkpoint that ends it: exit status %d, %v; it says: %s", status, err, says(t, c))
	}
}

// good asks the program to verify itself.
func (h *harness) good(ctx context.Context, t *testing.T, c *driver.Container) {
	t.Helper()
	if err := h.mig.Signal(ctx, c, syscall.SIGUSR1); err != nil {
		t.Fatalf("%v; it says: %s", err, says(t, c))
	}
	status, err := h.mig.Wait(ctx, c)
	said := h.lastWord(t, c)
	if err != nil || status != 0 || said != "good\n" {
		t.Fatalf("exit status %d, %v; it says: %s", status, err, said)
	}
}

// lastWord is what the program said when it was asked. An exit is reported
// before the shim has copied the last output.
func (h *harness) lastWord(t *testing.T, c *driver.Container) string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		said := strings.TrimPrefix(says(t, c), "ready\n")
		if strings.HasSuffix(said, "\n") || time.Now().After(end) {
			return said
		}
	}
}

func (h *harness) removeLater(t *testing.T, c *driver.Container) {
	t.Cleanup(func() {
		if err := h.mig.Remove(context.Background(), c); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(c.Bundle); err != nil {
			t.Error(err)
		}
	})
}

func says(t *testing.T, c *driver.Container) string {
	t.Helper()
	said, err := os.ReadFile(outputOf(c))
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}
