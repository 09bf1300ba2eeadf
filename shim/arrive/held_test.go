// SPDX-License-Identifier: Apache-2.0

package arrive

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// TestLeaving: a container gets its restart policy back only if it has stayed here by
// what was done with it last.
func TestLeaving(t *testing.T) {
	alive, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const id, move = "web", "mig://beta:7117"
	for _, test := range []struct {
		name    string
		last    request.Status
		entry   handover.Entry // of the last; EntryNone: no journal
		leaving bool
	}{
		{"it is on its way", request.Status{Kind: job.Checkpoint, Image: move, Phase: request.Active}, handover.EntryCommitted, true},
		{"its move was undone", request.Status{Kind: job.Checkpoint, Image: move, Phase: request.Failed}, handover.EntryKept, false},
		{"it was refused", request.Status{Kind: job.Checkpoint, Image: move, Phase: request.Failed}, handover.EntryNone, false},
		{"it is just ending: its copy runs", request.Status{Kind: job.Checkpoint, Image: move, Phase: request.Succeeded}, handover.EntryMoved, true},
		{"nobody knows", request.Status{Kind: job.Checkpoint, Image: move, Phase: request.Failed, Doubt: &request.Doubt{}}, handover.EntryCommitted, true},
		{"it was saved", request.Status{Kind: job.Checkpoint, Image: "/images/web", Phase: request.Succeeded}, handover.EntryNone, false},
		{"it has come back", request.Status{Kind: job.Restore, Phase: request.Succeeded}, handover.EntryNone, false},
	} {
		state, dir := t.TempDir(), filepath.Join(t.TempDir(), "journal")
		put := func(name string, st request.Status, entry handover.Entry) {
			token := wire.NewToken()
			st.ID, st.Container, st.Token = name, id, token.String()
			st.Owner = request.Process{Pid: os.Getpid()}
			record(t, state, &st)
			if entry == handover.EntryNone {
				return
			}
			if err := journal.Create(dir, journal.State{Token: token, Side: journal.Source, Entry: entry, Engine: alive}); err != nil {
				t.Fatal(err)
			}
		}
		put("request-1", request.Status{Kind: job.Checkpoint, Image: move, Phase: request.Succeeded}, handover.EntryMoved) // of an earlier life
		put("request-2", test.last, test.entry)
		if leaves, err := leaving(state, dir, namespace, id); err != nil || leaves != test.leaving {
			t.Errorf("%s: %v, %v", test.name, leaves, err)
		}
	}
}
