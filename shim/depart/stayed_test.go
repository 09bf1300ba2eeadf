// SPDX-License-Identifier: Apache-2.0

package depart

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/spec/wire"
)

// TestStayed: containerd may start a container anew only if its journal says that no
// copy of it runs, and nobody can change that any more.
func TestStayed(t *testing.T) {
	alive, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	dead := journal.Process{Pid: alive.Pid, Start: alive.Start + 1}
	for _, test := range []struct {
		name   string
		entry  handover.Entry
		engine journal.Process
		stayed bool
	}{
		{"rolled back", handover.EntryKept, alive, true},
		{"its engine died before COMMIT", handover.EntryNone, dead, true},
		{"its engine may still send COMMIT", handover.EntryNone, alive, false},
		{"nobody knows", handover.EntryCommitted, dead, false},
		{"its engine asks", handover.EntryCommitted, alive, false},
		{"moved", handover.EntryMoved, dead, false},
	} {
		dir := filepath.Join(t.TempDir(), "journal")
		s := journal.State{Token: wire.NewToken(), Side: journal.Source, Entry: test.entry, Engine: test.engine}
		if err := journal.Create(dir, s); err != nil {
			t.Fatal(err)
		}
		if err := stayed(dir, s.Token, 300*time.Millisecond); (err == nil) != test.stayed {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if err := stayed(t.TempDir(), wire.NewToken(), time.Second); err != nil {
		t.Errorf("it never began: %v", err)
	}
}

// TestStayedWaits: an engine that is at it decides.
func TestStayedWaits(t *testing.T) {
	alive, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "journal")
	s := journal.State{Token: wire.NewToken(), Side: journal.Source, Engine: alive}
	if err := journal.Create(dir, s); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() {
		s := s
		s.Entry = handover.EntryKept
		_ = journal.Write(dir, s)
	})
	if err := stayed(dir, s.Token, 10*time.Second); err != nil {
		t.Error(err)
	}
}
