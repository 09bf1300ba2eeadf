// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/spec/wire"
)

// TestWatchFindsItsOwn: of a container's requests the move's own is looked at and
// cancelled, and no other, whatever time that says it is of.
func TestWatchFindsItsOwn(t *testing.T) {
	const namespace, id = "default", "web"
	dir := t.TempDir()
	w := &watch{m: &mover{o: Options{Requests: dir, Namespace: namespace, Container: id}, token: wire.NewToken()}}
	put := func(name, token string, created time.Time) {
		t.Helper()
		b, err := json.Marshal(request.Status{ID: name, Token: token, Kind: job.Checkpoint, Container: id, Phase: request.Active, Created: created, Owner: request.Process{Pid: os.Getpid()}})
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, namespace, "requests"), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, namespace, "requests", name+".json"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("request-1", wire.NewToken().String(), time.Now().Add(time.Hour)) // a checkpoint by somebody else
	if w.abort(); w.status != nil {
		t.Errorf("another's request is taken for its own: %+v", w.status)
	}
	if _, err := os.Lstat(filepath.Join(dir, namespace, "requests", "request-1.abort")); err == nil {
		t.Error("another's request is cancelled")
	}
	put("request-0", w.m.token.String(), time.Now().Add(-time.Hour))
	if w.abort(); w.status == nil || w.status.ID != "request-0" {
		t.Errorf("its own is not found: %+v", w.status)
	}
}
