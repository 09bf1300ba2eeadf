// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// mig checkpoint saves a large container with early rounds, since nobody pauses it,
// and leaves an ended one to nerdctl.
func TestMigCheckpoint(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		n := dial(t, host)
		removeLater(t, host, "redis")
		if err := n.Run(t.Context(), itest.Mig, image.Redis.Name, "redis", nil); err != nil {
			t.Fatal(err)
		}
		s := fill(t, host, "redis")
		if got := saved(t, host, "redis", filepath.Join(t.TempDir(), "first")); got.Progress.Round == 0 {
			t.Errorf("no early round was made: %+v", got)
		}
		s.proven(t, host, "redis")
		dir := filepath.Join(t.TempDir(), "second")
		if got := saved(t, host, "redis", dir, "--exit"); got.Progress.Round != 0 {
			t.Errorf("early rounds were made of a container that ends: %+v", got)
		}
		await(t, host, "redis", "STOPPED")
		if err := n.StartCheckpoint(t.Context(), "redis", dir); err != nil {
			t.Fatal(err)
		}
		s.proven(t, host, "redis")
		out, err := migCheckpoint(host, "nobody", dir)
		if err == nil || !strings.Contains(string(out), "there is no container nobody") {
			t.Errorf("of no container: %v: %s", err, out)
		}
	})
}

// progressed is the part of a request's status that is looked at here.
type progressed struct {
	Phase    string `json:"phase"`
	Progress struct {
		Round int    `json:"round"`
		Bytes uint64 `json:"bytes"`
	} `json:"progress"`
}

func migCheckpoint(host *itest.Host, args ...string) ([]byte, error) {
	args = append([]string{"checkpoint", "--json", "-n", host.Namespace, "--containerd", host.Address, "--state", filepath.Join(host.Dir, "state")}, args...)
	return exec.Command(host.Tree.Bin("mig"), args...).CombinedOutput()
}

// saved runs mig checkpoint.
func saved(t *testing.T, host *itest.Host, id, dir string, flags ...string) (st progressed) {
	t.Helper()
	out, err := migCheckpoint(host, append(flags, id, dir)...)
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err == nil && (st.Phase != "succeeded" || st.Progress.Bytes < keys*keySize) {
		err = fmt.Errorf("it says %+v", st)
	}
	if err != nil {
		t.Fatalf("mig checkpoint: %v: %s", err, out)
	}
	if out, err := exec.Command(host.Tree.Bin("mig"), "verify", dir).CombinedOutput(); err != nil {
		t.Errorf("mig verify: %v: %s", err, out)
	}
	return st
}

// TestMigCheckpointInterrupted: mig checkpoint that is interrupted ends when its
// checkpoint is undone: no image and no directory are left, and Redis runs on. At a
// moment that is too late the image is there.
func TestMigCheckpointInterrupted(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		s := startRedis(t, host, "redis")
		undone := 0
		for n := range 12 {
			dir := filepath.Join(t.TempDir(), "a", "image")
			c := exec.Command(host.Tree.Bin("mig"), "checkpoint", "-n", host.Namespace, "--containerd", host.Address, "--state", filepath.Join(host.Dir, "state"), "redis", dir)
			var out bytes.Buffer
			c.Stdout, c.Stderr = &out, &out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(n) * 20 * time.Millisecond)
			_ = c.Process.Signal(os.Interrupt) // it may have ended
			err := c.Wait()
			t.Logf("after %d ms: %v, %s", n*20, err, &out)
			_, none := os.Stat(filepath.Dir(dir))
			whole := exec.Command(host.Tree.Bin("mig"), "verify", dir).Run() == nil
			switch said := out.String(); {
			case strings.Contains(said, "was undone"):
				undone++
				fallthrough
			case strings.Contains(said, "had not begun"):
				if !errors.Is(none, fs.ErrNotExist) {
					t.Errorf("what was to be undone has left %s", dir)
				}
			case err == nil || strings.Contains(said, "too late"):
				if !whole {
					t.Errorf("the image is said to be complete: %s", said)
				}
			case c.ProcessState.ExitCode() >= 0: // not killed before it knew better
				t.Errorf("it does not say what has become of the checkpoint: %s", said)
			}
			if got := status(t, host, "redis"); got != "RUNNING" {
				t.Fatalf("redis is %s", got)
			}
		}
		if undone == 0 {
			t.Error("no interrupt came while a checkpoint was made")
		}
		s.proven(t, host, "redis")
	})
}
