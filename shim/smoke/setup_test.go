// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/shim/bootstrap"
)

// shimDir has the shim, built once for all tests; MIG_SHIM_DIR names one that
// is built already.
var shimDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if shimDir = os.Getenv("MIG_SHIM_DIR"); shimDir != "" {
			return m.Run()
		}
		if shimDir, err = os.MkdirTemp("", "mig-smoke-bin-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(shimDir)
		return m.Run()
	}())
}

func buildShim(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(shimDir, "containerd-shim-mig-v1")); err == nil {
		return
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-tags", "runc_nocriu,seccomp,netgo,osusergo",
		"-ldflags", "-s -w -extldflags -static", "-o", shimDir, "./cmd/containerd-shim-mig-v1", "./cmd/mig-engine")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the shim: %v\n%s", err, text)
	}
}

// onEach runs a test on every containerd there is.
func onEach(t *testing.T, test func(t *testing.T, d *daemon)) {
	t.Helper()
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("needs root and a containerd")
	}
	found := false
	cache, _ := filepath.Abs("../../integration/.cache/bin")
	for _, v := range []struct{ name, dir string }{{"debian", "/usr/bin"}, {"pinned", cache}} {
		if _, err := os.Stat(filepath.Join(v.dir, "containerd")); err != nil {
			continue
		}
		found = true
		t.Run(v.name, func(t *testing.T) {
			buildShim(t)
			test(t, newDaemon(t, v.dir))
		})
	}
	if !found {
		t.Skip("no containerd: apt-get install containerd, or make tools")
	}
}

func newDaemon(t *testing.T, bin string) *daemon {
	t.Helper()
	// Short: a unix socket's path ends at 107 bytes.
	dir, err := os.MkdirTemp("/run", "mig-smoke-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir, containerd: filepath.Join(bin, "containerd"), ctr: filepath.Join(bin, "ctr"),
		namespace: filepath.Base(dir), path: shimDir + ":" + os.Getenv("PATH")}
	for _, sub := range []string{"root", "state", "tmp"} {
		if err := os.Mkdir(d.file(sub), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, d.file("root"), d.file("state"), d.file("sock"), d.file("sock.ttrpc"))
	if err := os.WriteFile(d.file("config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	makeRootfs(t, d.file("rootfs"))
	d.start()
	t.Cleanup(func() { d.cleanUp() })
	return d
}

// makeRootfs is a root filesystem of busybox and its links.
func makeRootfs(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"bin", "proc", "sys", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Skipf("busybox (static) is missing: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh cat echo sleep ls id true false ps tty stty kill ip dd tail yes head wc trap") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// cleanUp removes all containers and fails the test if anything is left.
func (d *daemon) cleanUp() {
	defer os.RemoveAll(d.dir)
	defer d.stop()
	for id := range strings.FieldsSeq(d.must("container", "ls", "-q")) {
		d.remove(id)
	}
	// The last shim needs a moment for its end.
	end := time.Now().Add(5 * time.Second)
	for time.Now().Before(end) && len(without(d.leftovers()["processes"], "containerd")) > 0 {
		time.Sleep(50 * time.Millisecond)
	}
	d.stop()
	for what, left := range d.leftovers() {
		if len(left) > 0 {
			d.t.Errorf("left behind: %s: %v", what, left)
		}
	}
	for _, dir := range globs("/sys/fs/cgroup/*/"+d.namespace, "/sys/fs/cgroup/"+d.namespace) {
		os.Remove(dir)
	}
	if d.t.Failed() {
		d.t.Log(d.tail())
	}
}

// leftovers are what a container could leave: mounts, cgroups, shims, sockets.
func (d *daemon) leftovers() map[string][]string {
	left := map[string][]string{}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.dir+"/") {
			left["mounts"] = append(left["mounts"], line)
		}
	}
	left["cgroups"] = globs("/sys/fs/cgroup/*/"+d.namespace+"/*/cgroup.procs", "/sys/fs/cgroup/"+d.namespace+"/*/cgroup.procs")
	for _, dir := range globs("/proc/[0-9]*") {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if strings.Contains(string(cmdline), d.namespace) || strings.HasPrefix(cwd, d.dir) {
			left["processes"] = append(left["processes"], dir+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	for _, id := range []string{"one", "two", "shared"} {
		if path := d.socket(id); exists(path) {
			left["sockets"] = append(left["sockets"], id+" "+path)
		}
	}
	return left
}

// socket is where the shim of a group listens.
func (d *daemon) socket(group string) string {
	dir := bootstrap.DefaultSocketDir
	return bootstrap.SocketPath(dir, d.file("sock"), d.namespace, group)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func globs(patterns ...string) (paths []string) {
	for _, p := range patterns {
		m, _ := filepath.Glob(p)
		paths = append(paths, m...)
	}
	return paths
}
