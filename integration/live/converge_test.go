// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// quota is how much of the processors the first process of a container may use, as
// its cgroup has it.
func (h *host) quota(id string) string {
	b, err := os.ReadFile("/proc/" + h.pid(id) + "/cgroup")
	if err != nil {
		return err.Error()
	}
	file := "/sys/fs/cgroup/cpu"
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case f[1] != "" && slices.Contains(strings.Split(f[1], ","), "cpu"):
			file = filepath.Join("/sys/fs/cgroup/cpu", f[2], "cpu.cfs_quota_us")
		case f[1] == "" && file == "/sys/fs/cgroup/cpu":
			file = filepath.Join("/sys/fs/cgroup", f[2], "cpu.max")
		}
	}
	if b, err = os.ReadFile(file); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// killEngine kills the engine that works on a host.
func (h *host) killEngine() error {
	network, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.Pid()))
	if err != nil {
		return err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range all {
		exe, _ := os.Readlink(dir + "/exe")
		net, _ := os.Readlink(dir + "/ns/net")
		if net == network && strings.HasPrefix(filepath.Base(exe), "mig-engine") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				return err
			}
			return syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return os.ErrNotExist
}

// TestAutoConverge: a program that writes to all of its memory faster than that
// travels is slowed down if that is asked for, and only then, and has its speed
// back whatever becomes of the move.
func TestAutoConverge(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "writer"
	w.run(w.alpha, image.Busybox, id, "dd", "if=/dev/urandom", "of=/dev/null", "bs=8M")
	before := w.alpha.quota(id)
	flags := []string{"--strategy", "pre-copy", "--compress", "none", "--bandwidth", "16MB", "--auto-converge", id, w.beta.IP}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := w.alpha.migrate(ctx, flags...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 2*migdReady, "it is slowed down", func() bool { return w.alpha.quota(id) != before })
	if err := w.alpha.killEngine(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("mig migrate is content without its engine")
	}
	if got := w.alpha.quota(id); got != before || w.alpha.status(id) != "RUNNING" {
		t.Fatalf("after its engine's death it is %s with %s, it had %s", w.alpha.status(id), got, before)
	}
	w.mustMove(w.alpha, flags...)
	if got := w.beta.quota(id); got != before {
		t.Errorf("the copy has %s, the original had %s", got, before)
	}
}
