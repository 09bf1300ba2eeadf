// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/peer"
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
			r := &restore{dir: state, journal: dir, namespace: namespace, container: container, token: token.String()}
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

// TestAwaitWithoutRecord: a copy whose request nobody has a record of, or only one of an
// earlier life of the id that seems to be younger since the clock was set back, is what
// the journal says it is.
func TestAwaitWithoutRecord(t *testing.T) {
	here, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const container = "web"
	dead := journal.Process{Pid: here.Pid, Start: here.Start + 1}
	for _, test := range []struct {
		name    string
		entry   handover.Entry
		engine  journal.Process
		left    bool
		running bool
		err     error
	}{
		{"it runs", handover.EntryRunning, dead, false, true, nil},
		{"it is being filled", handover.EntryNone, here, false, false, errAtWork},
		{"it runs, and memory comes", handover.EntryRunning, here, true, false, errAtWork},
		{"it never ran", handover.EntryAborted, dead, false, false, nil},
		{"it is lost", handover.EntryLost, dead, false, false, nil},
	} {
		state, dir, token := t.TempDir(), filepath.Join(t.TempDir(), "journal"), wire.NewToken()
		s := journal.State{Token: token, Side: journal.Destination, Container: container, Request: "restore-2", Entry: test.entry, Engine: test.engine, Init: here, Left: test.left}
		if err := journal.Create(dir, s); err != nil {
			t.Fatal(err)
		}
		before := time.Now().Add(time.Hour)
		record(t, state, &request.Status{ID: "restore-1", Token: wire.NewToken().String(), Kind: job.Restore, Container: container, Phase: request.Succeeded, Created: before})
		r := &restore{dir: state, journal: dir, namespace: namespace, container: container, token: token.String()}
		if running, err := r.await(t.Context()); running != test.running || !errors.Is(err, test.err) {
			t.Errorf("%s: running: %v, %v", test.name, running, err)
		}
	}
	state := t.TempDir()
	record(t, state, &request.Status{ID: "restore-1", Token: wire.NewToken().String(), Kind: job.Restore, Container: container, Phase: request.Succeeded, Created: time.Now().Add(time.Hour)})
	r := &restore{dir: state, journal: t.TempDir(), namespace: namespace, container: container, token: wire.NewToken().String()}
	if running, err := r.await(t.Context()); err != nil || running {
		t.Errorf("nothing was restored, and an earlier copy was: running: %v, %v", running, err)
	}
}

// TestGiveUp: a copy that runs and waits for the rest of its memory is not given up
// because its source, or migd, is gone; the source's own word ends it.
func TestGiveUp(t *testing.T) {
	here, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		entry handover.Entry
		left  bool
		why   error
		given bool
	}{
		{"filling, the source is gone", handover.EntryRunning, true, fmt.Errorf("%w: reset", peer.ErrAborted), false},
		{"filling, migd ends", handover.EntryRunning, true, peer.ErrEnding, false},
		{"filling, the source has told", handover.EntryRunning, true, &peer.AbortedError{Reason: "its shim has died"}, true},
		{"building, the source is gone", handover.EntryNone, false, fmt.Errorf("%w: reset", peer.ErrAborted), true},
	} {
		state, dir, token := t.TempDir(), filepath.Join(t.TempDir(), "journal"), wire.NewToken()
		s := journal.State{Token: token, Side: journal.Destination, Request: "restore-1", Entry: test.entry, Engine: here, Init: here, Left: test.left}
		if err := journal.Create(dir, s); err != nil {
			t.Fatal(err)
		}
		record(t, state, &request.Status{ID: "restore-1", Token: token.String(), Kind: job.Restore, Container: "web", Phase: request.Active})
		r := &restore{dir: state, journal: dir, namespace: namespace, container: "web", token: token.String()}
		if err := r.giveUp(test.why); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, err := os.Lstat(filepath.Join(state, namespace, "requests", "restore-1.abort")); (err == nil) != test.given {
			t.Errorf("%s: given up: %v", test.name, err == nil)
		}
	}
}

// TestUnknownFate: where nobody can tell whether a copy runs, nothing of it is removed.
func TestUnknownFate(t *testing.T) {
	state, dir, token := t.TempDir(), filepath.Join(t.TempDir(), "journal"), wire.NewToken()
	here, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	s := journal.State{Token: token, Side: journal.Destination, Request: "restore-1", Entry: handover.EntryCommitted, Init: here}
	if err := journal.Create(dir, s); err != nil {
		t.Fatal(err)
	}
	// Its recovery cannot be written down.
	if err := os.Mkdir(journal.Path(dir, token, journal.Destination)+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	record(t, state, &request.Status{ID: "restore-1", Token: token.String(), Kind: job.Restore, Container: "web", Phase: request.Failed})
	m := &move{touched: true, prepared: true, offer: &peer.Offer{Token: token.String()}} // it has no host: nobody is asked to remove anything
	r := &restore{dir: state, journal: dir, namespace: namespace, container: "web", token: token.String()}
	if err := m.fate(t.Context(), r, errors.New("containerd is gone")); err == nil {
		t.Error("it is said to run")
	}
	if err := m.Undo(errors.New("it failed")); err == nil || !m.left {
		t.Errorf("undone: %v; left for later: %v", err, m.left)
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
