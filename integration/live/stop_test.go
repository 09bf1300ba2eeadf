// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/io-mig/mig/integration/internal/repo"
)

// stoppable is a directory of mig's programs whose engine stops itself where a
// test wants it to (mig-stopengine).
func stoppable(t *testing.T) string {
	t.Helper()
	tree, err := repo.Find()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "stop"), 0o700); err != nil {
		t.Fatal(err)
	}
	// Copies: a program looks for the engine where it lies itself.
	for name, file := range map[string]string{
		"containerd-shim-mig-v1": tree.Bin("containerd-shim-mig-v1"), "mig": tree.Bin("mig"), "migd": tree.Bin("migd"),
		"mig-engine": tree.Tool("mig-stopengine"),
	} {
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// stopAt has the next engine that comes to a step of a container's move stop
// there.
func (w *world) stopAt(id, step string) {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.bin, "stop", id), []byte(step), 0o600))
}

// stopped waits until a container's engine has stopped, and returns its pid.
func (w *world) stopped(id, step string) (pid int) {
	w.t.Helper()
	waitFor(w.t, settleWithin, "an engine of "+id+" stops at "+step, func() bool {
		files, _ := filepath.Glob(filepath.Join(w.bin, "stop", id+".*"))
		if len(files) == 0 {
			return false
		}
		name := filepath.Base(files[0])[len(id)+1:]
		b, err := os.ReadFile("/proc/" + name + "/status")
		if err != nil || !strings.Contains(string(b), "\nState:\tT") {
			return false
		}
		if pid, err = strconv.Atoi(name); err != nil {
			return false
		}
		return os.Remove(files[0]) == nil
	})
	return pid
}

// goOn lets a stopped engine go on.
func (w *world) goOn(pid int) {
	w.t.Helper()
	w.must(syscall.Kill(pid, syscall.SIGCONT))
}
