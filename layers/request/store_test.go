// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, id string, p Phase, owner Process) {
	t.Helper()
	if err := s.write(&Status{ID: id, Phase: p, Owner: owner}); err != nil {
		t.Fatal(err)
	}
}

func TestLostRequests(t *testing.T) {
	s := testStore(t)
	me := self()
	if me.Start == 0 {
		t.Fatal("our own start time is unknown")
	}
	put(t, s, "1", Active, me)
	put(t, s, "2", Active, Process{Pid: me.Pid, Start: me.Start + 1}) // the pid of another
	put(t, s, "3", Active, Process{Pid: 1 << 22, Start: 1})           // beyond any pid
	put(t, s, "4", Succeeded, Process{Pid: 1 << 22, Start: 1})
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []Phase{Active, Lost, Lost, Succeeded}
	for i, st := range all {
		if st.Phase != want[i] {
			t.Errorf("request %s is %s, want %s", st.ID, st.Phase, want[i])
		}
	}
}

func TestPrune(t *testing.T) {
	s := testStore(t)
	for _, id := range []string{"1", "3", "4", "5"} {
		put(t, s, id, Failed, self())
	}
	put(t, s, "2", Active, self())
	orphan, young := filepath.Join(s.dir, ".tmp-1"), filepath.Join(s.dir, ".tmp-2")
	os.WriteFile(orphan, nil, 0o600)
	os.WriteFile(young, nil, 0o600)
	old := time.Now().Add(-time.Hour)
	os.Chtimes(orphan, old, old)
	if err := s.prune(2, time.Now()); err != nil {
		t.Fatal(err)
	}
	ids, err := s.ids()
	if got := strings.Join(ids, " "); err != nil || got != "2 4 5" {
		t.Errorf("left are %q, %v", got, err)
	}
	if _, err := os.Stat(orphan); err == nil {
		t.Error("a dead writer's file is still there")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("a living writer's file is gone")
	}
}

// TestForeignFiles reads what somebody else may have put into the directory.
func TestForeignFiles(t *testing.T) {
	s := testStore(t)
	put(t, s, "good", Active, self())
	path := func(id string) string { return s.file(id) }
	os.Symlink(path("good"), path("link"))
	syscall.Mkfifo(path("fifo"), 0o600)
	os.Mkdir(path("dir"), 0o700)
	os.WriteFile(path("big"), bytes.Repeat([]byte(" "), maxStatus+1), 0o600)
	os.WriteFile(path("torn"), []byte(`{"id":"to`), 0o600)
	os.WriteFile(path("other"), []byte(`{"id":"good"}`), 0o600)
	for _, id := range []string{"link", "fifo", "dir", "big", "torn", "other", "../good", "", "none"} {
		if st, err := s.Read(id); err == nil {
			t.Errorf("%q was read: %+v", id, st)
		}
	}
	all, err := s.List()
	if len(all) != 1 || err == nil {
		t.Errorf("list: %v, %v", all, err)
	}
	if _, err := OpenStore("", "../x"); err == nil {
		t.Error("a namespace outside of the directory was opened")
	}
}
