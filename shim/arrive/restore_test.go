// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// TestAwait: whether a copy runs is what its shim has told if that was a success, and
// what the journal says of it otherwise: the engine of a copy that runs can die, which
// is the end of its request and not of the copy.
func TestAwait(t *testing.T) {
	here, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	dead := journal.Process{Pid: here.Pid, Start: here.Start + 1}
	const id, container = "restore-1", "web"
	for _, test := range []struct {
		name    string
		phase   request.Phase
		entry   handover.Entry
		init    journal.Process
		left    bool
		request string
		running bool
	}{
		{"told", request.Succeeded, handover.EntryRunning, here, false, id, true},
		{"its engine died when the copy ran", request.Failed, handover.EntryCommitted, here, false, id, true},
		{"its engine died when it had written that down", request.Failed, handover.EntryRunning, here, false, id, true},
		{"its engine and its shim died then", request.Lost, handover.EntryRunning, here, false, id, true},
		{"its engine died while memory came", request.Failed, handover.EntryRunning, here, true, id, false},
		{"its engine died before COMMIT", request.Failed, handover.EntryNone, here, false, id, false},
		{"the copy died with its engine", request.Failed, handover.EntryCommitted, dead, false, id, false},
		{"it was undone", request.Canceled, handover.EntryAborted, here, false, id, false},
		{"the journal is of another request", request.Failed, handover.EntryRunning, here, false, "restore-0", false},
		{"no engine has written anything", request.Failed, handover.EntryNone, here, false, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			state, dir, cgroup := t.TempDir(), filepath.Join(t.TempDir(), "journal"), t.TempDir()
			if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(here.Pid)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			token := wire.NewToken()
			if test.request != "" {
				s := journal.State{Token: token, Side: journal.Destination, Container: container, Request: test.request,
					Entry: test.entry, Engine: dead, Init: test.init, Tasks: 1, Freezer: cgroup, Left: test.left}
				if err := journal.Create(dir, s); err != nil {
					t.Fatal(err)
				}
			}
			now := time.Now()
			record(t, state, &request.Status{ID: id, Token: token.String(), Kind: job.Restore, Container: container, Phase: test.phase, Created: now})
			r := &restore{dir: state, journal: dir, namespace: namespace, container: container, token: token.String(), since: now}
			if running, err := r.await(t.Context()); err != nil || running != test.running {
				t.Errorf("running: %v, %v", running, err)
			}
		})
	}
	r := &restore{dir: t.TempDir(), journal: t.TempDir(), namespace: namespace, container: container, token: wire.NewToken().String()}
	if running, err := r.await(t.Context()); err != nil || running {
		t.Errorf("there is no request: running: %v, %v", running, err)
	}
}

const namespace = "test"

// record writes a status where a shim would.
func record(t *testing.T, dir string, st *request.Status) {
	t.Helper()
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, namespace, "requests"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, namespace, "requests", st.ID+".json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}
