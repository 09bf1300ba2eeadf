// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/scope"
)

//go:embed files
var files embed.FS

// host is what all servers share.
type host struct {
	tree repo.Tree
	scope.Scope
	mig    *driver.Mig
	serial int
}

var shared *host

func TestMain(m *testing.M) {
	h, err := newHost()
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

func newHost() (*host, error) {
	tree, err := repo.Find()
	if err != nil {
		return nil, err
	}
	s, err := scope.New()
	if err != nil {
		return nil, err
	}
	h := &host{tree: tree, Scope: s}
	if err := h.prepare(); err != nil {
		return nil, errors.Join(err, s.Destroy())
	}
	return h, nil
}

func (h *host) prepare() error {
	for _, dir := range []string{"bundles", "layers", "images", "tmp"} {
		if err := os.Mkdir(filepath.Join(h.Dir, dir), 0o711); err != nil {
			return err
		}
	}
	// Layers must lie on another file system than the root below them.
	if err := unix.Mount("mig-test", filepath.Join(h.Dir, "layers"), "tmpfs", 0, "mode=711"); err != nil {
		return fmt.Errorf("mount a tmpfs for layers: %w", err)
	}
	if err := os.CopyFS(filepath.Join(h.Dir, "layers"), files); err != nil {
		return err
	}
	src := filepath.Join(h.Dir, "layers", "files")
	if out, err := exec.Command("javac", "-d", src, filepath.Join(src, "Threads.java")).CombinedOutput(); err != nil {
		return fmt.Errorf("compile the Java program (run hack/deps.sh): %w: %s", err, out)
	}
	h.mig = &driver.Mig{
		Program: h.tree.Bin("containerd-shim-mig-v1"), Namespace: h.Name,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + filepath.Join(h.Dir, "tmp"), h.Mark()},
	}
	return h.mig.Open(h.Dir)
}

func (h *host) close() error {
	errs := []error{h.mig.Close(), unix.Unmount(filepath.Join(h.Dir, "layers"), 0)}
	for _, leak := range h.Leaks() {
		errs = append(errs, errors.New("leaked: "+leak))
	}
	return errors.Join(append(errs, h.Destroy())...)
}

// container makes a bundle whose writable layer is a copy of another one's, or
// fresh.
func (h *host) container(t *testing.T, script string, from *driver.Container) *driver.Container {
	t.Helper()
	h.serial++
	id := "s" + strconv.Itoa(h.serial)
	c := &driver.Container{ID: id, Bundle: filepath.Join(h.Dir, "bundles", id)}
	layer := h.layer(c)
	root := filepath.Join(c.Bundle, "rootfs")
	for _, dir := range []string{root, filepath.Join(layer, "work")} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	upper := filepath.Join(layer, "upper")
	if from == nil {
		must(t, os.CopyFS(filepath.Join(upper, "files"), os.DirFS(filepath.Join(h.Dir, "layers", "files"))))
		must(t, os.Chmod(upper, 0o755))
	} else if out, err := exec.Command("cp", "-a", "--sparse=always", filepath.Join(h.layer(from), "upper"), layer).CombinedOutput(); err != nil {
		t.Fatalf("copy the writable layer: %v: %s", err, out)
	}
	options := fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, filepath.Join(layer, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Fatalf("mount the container's root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmount %s: %v", root, err)
		}
		_ = os.RemoveAll(layer)
	})
	h.spec(t, c, script)
	must(t, os.WriteFile(filepath.Join(c.Bundle, "output"), nil, 0o666))
	c.Stdout = "file://" + filepath.Join(c.Bundle, "output")
	return c
}

func (h *host) layer(c *driver.Container) string { return filepath.Join(h.Dir, "layers", c.ID) }

// spec writes runc's default one with containerd's capabilities and a network
// of its own.
func (h *host) spec(t *testing.T, c *driver.Container, script string) {
	t.Helper()
	if out, err := exec.Command(h.tree.Tool("runc"), "spec", "--bundle", c.Bundle).CombinedOutput(); err != nil {
		t.Fatalf("runc spec: %v: %s", err, out)
	}
	path := filepath.Join(c.Bundle, "config.json")
	raw, err := os.ReadFile(path)
	must(t, err)
	var spec specs.Spec
	must(t, json.Unmarshal(raw, &spec))
	var capabilities []string
	for _, name := range strings.Fields("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE") {
		capabilities = append(capabilities, "CAP_"+name)
	}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities}
	spec.Process.Terminal, spec.Process.NoNewPrivileges = false, false
	spec.Process.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"}
	spec.Process.Args = []string{"/bin/bash", "-c", ". /files/common.sh\n" + script}
	spec.Root.Readonly = false
	spec.Linux.CgroupsPath = filepath.Join("/"+h.Name, c.ID)
	raw, err = json.Marshal(&spec)
	must(t, err)
	must(t, os.WriteFile(path, raw, 0o600))
}

// inside runs a script in the container's namespaces and root.
func inside(ctx context.Context, c *driver.Container, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(c.Pid), "--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd",
		"/bin/bash", "-c", ". /files/common.sh\n"+script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// counters reads the clients' counters from the writable layer. An error of a
// client fails t.
func (h *host) counters(t *testing.T, c *driver.Container) map[string]int {
	t.Helper()
	dir := filepath.Join(h.layer(c), "upper", "load")
	failed, _ := filepath.Glob(filepath.Join(dir, "*.error"))
	for _, path := range failed {
		text, _ := os.ReadFile(path)
		t.Fatalf("a client of %s failed: %s", c.ID, text)
	}
	counts := map[string]int{}
	paths, _ := filepath.Glob(filepath.Join(dir, "*.count"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		must(t, err)
		counts[filepath.Base(path)] = n
	}
	return counts
}

// moves waits until every counter has grown beyond what it was.
func (h *host) moves(t *testing.T, c *driver.Container, clients int, was map[string]int) map[string]int {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		now, grown := h.counters(t, c), 0
		for name, n := range now {
			if n > was[name] {
				grown++
			}
		}
		if grown == clients {
			return now
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(filepath.Join(c.Bundle, "output"))
			t.Fatalf("%s: only %d of %d clients go on, from %v to %v; the container says: %s", c.ID, grown, clients, was, now, said)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
