// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/lab"
	"github.com/io-mig/mig/integration/internal/repo"
)

// newSteppedWorld makes hosts whose engines do at each step of a move what a test
// orders (layers/engine/enginetest).
func newSteppedWorld(t *testing.T, images ...image.Image) *world {
	t.Helper()
	return newSteppedWorldOf(t, daemon.V24, images...)
}

// newSteppedWorldOf is one whose first host has a containerd of some version.
func newSteppedWorldOf(t *testing.T, version daemon.Version, images ...image.Image) *world {
	t.Helper()
	tree, err := repo.Find()
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOf(t, tree.Tool("mig-engine-test"), func(*lab.Lab) error { return nil }, version, images...)
}

// hostOf is the host whose engine comes to a step.
func hostOf(step string, source, destination *host) *host {
	if strings.HasPrefix(step, "destination") {
		return destination
	}
	return source
}

// stopFile has the step at which a container's engine stops; a dot and its pid are
// added when it does.
func (h *host) stopFile(id string) string { return h.d.Engine() + ".stop." + id }

// stopAt has the next engine of a host that comes to a step of a container's move
// stop there.
func (w *world) stopAt(h *host, id, step string) {
	w.t.Helper()
	w.must(os.WriteFile(h.stopFile(id), []byte(step), 0o600))
}

// stopped waits until a container's engine has stopped, and returns its pid.
func (w *world) stopped(h *host, id, step string) (pid int) {
	w.t.Helper()
	waitFor(w.t, settleWithin, "an engine of "+id+" stops at "+step, func() bool {
		pid = h.stoppedEngine(id)
		return pid != 0
	})
	return pid
}

// stoppedEngine is the pid of an engine that has stopped where stopAt wanted it to,
// once; 0: none has.
func (h *host) stoppedEngine(id string) (pid int) {
	files, _ := filepath.Glob(h.stopFile(id) + ".*")
	if len(files) == 0 {
		return 0
	}
	name := strings.TrimPrefix(files[0], h.stopFile(id)+".")
	b, err := os.ReadFile("/proc/" + name + "/status")
	if err != nil || !strings.Contains(string(b), "\nState:\tT") {
		return 0
	}
	if pid, err = strconv.Atoi(name); err != nil || os.Remove(files[0]) != nil {
		return 0
	}
	return pid
}

// goOn lets a stopped engine go on.
func (w *world) goOn(pid int) {
	w.t.Helper()
	w.must(syscall.Kill(pid, syscall.SIGCONT))
}
