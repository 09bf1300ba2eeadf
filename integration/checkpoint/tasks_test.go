// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/itest"
)

// `ctr tasks checkpoint` leaves the container running.
func TestCheckpointTask(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		host.Must(t, "tasks", "checkpoint", "redis")
		if got := status(t, host, "redis"); got != "RUNNING" {
			t.Errorf("after the checkpoint it is %s", got)
		}
		s.proven(t, host, "redis")
	})
}

// A container that was paused by its user stays so.
func TestCheckpointTaskPaused(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		host.Must(t, "tasks", "pause", "redis")
		host.Must(t, "tasks", "checkpoint", "redis")
		if got := status(t, host, "redis"); got != "PAUSED" {
			t.Errorf("after the checkpoint it is %s, want PAUSED", got)
		}
		host.Must(t, "tasks", "resume", "redis")
		s.proven(t, host, "redis")
	})
}

// --exit ends the container. The ctr of 1.6 drops its options for every
// runtime but runc's, so there the container goes on.
func TestCheckpointTaskExit(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		host.Must(t, "tasks", "checkpoint", "--exit", "redis")
		if version == daemon.V16 {
			s.proven(t, host, "redis")
			return
		}
		await(t, host, "redis", "STOPPED")
		host.Must(t, "tasks", "delete", "redis")
	})
}

// --image-path writes a directory that `mig verify` accepts and nothing of
// the memory into the content store. Again: options do not get through 1.6.
func TestCheckpointTaskImagePath(t *testing.T) {
	for _, leave := range []bool{true, false} {
		name := map[bool]string{true: "leave-running", false: "exit"}[leave]
		t.Run(name, func(t *testing.T) {
			host := startHost(t, daemon.V24)
			s := startRedis(t, host, "redis")
			dir := filepath.Join(t.TempDir(), "image") // the shim makes it
			args := []string{"tasks", "checkpoint", "--image-path", dir}
			if !leave {
				args = append(args, "--exit")
			}
			host.Must(t, append(args, "redis")...)
			flat(t, dir, keys*keySize)
			if out, err := exec.Command(host.Tree.Bin("mig"), "verify", dir).CombinedOutput(); err != nil {
				t.Errorf("mig verify: %v: %s", err, out)
			}
			if leave {
				s.proven(t, host, "redis")
			} else {
				await(t, host, "redis", "STOPPED")
			}
		})
	}
}

// flat fails t unless dir holds regular files only, as containerd's tar and
// CRI need it, of at least size bytes in sum.
func flat(t *testing.T, dir string, size int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if !info.Mode().IsRegular() {
			t.Errorf("%s is %v, want regular files only", entry.Name(), info.Mode())
		}
		sum += info.Size()
	}
	if sum < size {
		t.Errorf("%d bytes in %s: the data alone have %d", sum, dir, size)
	}
}
