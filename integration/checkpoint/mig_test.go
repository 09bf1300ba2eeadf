// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
