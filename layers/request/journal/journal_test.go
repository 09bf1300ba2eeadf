// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/spec/wire"
)

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	s := State{Token: wire.NewToken(), Side: Source, Container: "web", Image: "mig://b?x", Engine: Process{1, 2}, Tasks: 3}
	if err := Create(dir, s); err != nil {
		t.Fatal(err)
	}
	if err := Create(dir, s); !errors.Is(err, ErrExists) {
		t.Errorf("a token twice: %v", err)
	}
	s.Entry = handover.EntryCommitted
	if err := Write(dir, s); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir, s.Token, Source)
	s.Updated = got.Updated
	if err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Read(dir, s.Token, Destination); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other side: %v", err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if Forced(dir, s.Token) {
		t.Error("forced")
	}
	if err := Force(dir, s.Token); err != nil || !Forced(dir, s.Token) {
		t.Errorf("force: %v", err)
	}
	if err := Force(dir, wire.NewToken()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("force of an unknown move: %v", err)
	}
	for _, entry := range []handover.Entry{handover.EntryNone, handover.EntryMoved, handover.EntryKept} {
		s := State{Token: wire.NewToken(), Side: Source, Entry: entry}
		if err := Create(dir, s); err != nil {
			t.Fatal(err)
		}
		if err := Force(dir, s.Token); !errors.Is(err, ErrNoDoubt) || Forced(dir, s.Token) {
			t.Errorf("force of a move that is %q: %v", entry, err)
		}
	}
	if err := os.WriteFile(Path(dir, s.Token, Source), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, s.Token, Source); err == nil {
		t.Error("half a journal was read")
	}
}

// child is a process that lives until it is killed.
func child(t *testing.T) (Process, func()) {
	t.Helper()
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { _ = c.Process.Kill(); _ = c.Wait() }
	t.Cleanup(end)
	p, err := ProcessOf(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p, end
}

// TestAnswer: what a destination says depends on the last entry and on who
// lives, and is written down before it is said.
func TestAnswer(t *testing.T) {
	alive, _ := child(t)
	dead, kill := child(t)
	kill()
	cgroup := t.TempDir()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(alive.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name         string
		entry        handover.Entry
		engine, init Process
		tasks        int
		want         handover.Message
		after        handover.Entry
	}{
		{"under way", handover.EntryNone, alive, alive, 0, handover.Ready, handover.EntryNone},
		{"running it now", handover.EntryCommitted, alive, alive, 1, handover.Ready, handover.EntryCommitted},
		{"died before COMMIT", handover.EntryNone, dead, dead, 0, handover.Aborted, handover.EntryAborted},
		{"died before COMMIT, the frame was never seized", handover.EntryNone, dead, alive, 0, handover.Aborted, handover.EntryAborted},
		{"died when the copy ran", handover.EntryCommitted, dead, alive, 1, handover.Running, handover.EntryRunning},
		{"died when a part ran", handover.EntryCommitted, dead, alive, 2, handover.Lost, handover.EntryLost},
		{"died in between", handover.EntryCommitted, dead, dead, 1, handover.Lost, handover.EntryLost},
		{"its pid belongs to another", handover.EntryCommitted, Process{alive.Pid, alive.Start + 1}, dead, 1, handover.Lost, handover.EntryLost},
		{"ran", handover.EntryRunning, dead, dead, 1, handover.Running, handover.EntryRunning},
		{"aborted", handover.EntryAborted, alive, alive, 1, handover.Aborted, handover.EntryAborted},
		{"lost", handover.EntryLost, dead, alive, 1, handover.Lost, handover.EntryLost},
	} {
		dir := t.TempDir()
		s := State{Token: wire.NewToken(), Side: Destination, Entry: test.entry, Engine: test.engine, Init: test.init, Tasks: test.tasks, Freezer: cgroup}
		if err := Create(dir, s); err != nil {
			t.Fatal(err)
		}
		for range 2 { // asking twice is asking once
			got, err := Answer(dir, s.Token)
			if err != nil || got != test.want {
				t.Errorf("%s: %s, %v", test.name, got, err)
			}
			if s, err = Read(dir, s.Token, Destination); err != nil || s.Entry != test.after {
				t.Errorf("%s: the journal says %q, %v", test.name, s.Entry, err)
			}
		}
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if m, err := Answer(dir, wire.NewToken()); !errors.Is(err, ErrUnknown) || m != 0 {
			t.Errorf("unknown: %s, %v", m, err)
		}
	}
}

// TestCopyOf: what became of a request's copy is what its host's journal says, whatever
// the request's own end was, and only of the request that the journal is of.
func TestCopyOf(t *testing.T) {
	alive, _ := child(t)
	dead, kill := child(t)
	kill()
	cgroup := t.TempDir()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(alive.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		entry handover.Entry
		init  Process
		left  bool
		asked string
		want  handover.Message
		whole bool
		err   error
	}{
		{"its engine died when the copy ran", handover.EntryCommitted, alive, false, "restore-1", handover.Running, true, nil},
		{"its engine died when it had written that down", handover.EntryRunning, alive, false, "restore-1", handover.Running, true, nil},
		{"its engine died while memory came", handover.EntryRunning, alive, true, "restore-1", handover.Running, false, nil},
		{"its engine died before COMMIT", handover.EntryNone, alive, false, "restore-1", handover.Aborted, true, nil},
		{"the copy died with its engine", handover.EntryCommitted, dead, false, "restore-1", handover.Lost, true, nil},
		{"the journal is of another request", handover.EntryRunning, alive, false, "restore-2", 0, false, ErrUnknown},
	} {
		dir := t.TempDir()
		s := State{Token: wire.NewToken(), Side: Destination, Request: "restore-1", Entry: test.entry, Engine: dead, Init: test.init, Tasks: 1, Freezer: cgroup, Left: test.left}
		if err := Create(dir, s); err != nil {
			t.Fatal(err)
		}
		m, whole, err := CopyOf(dir, s.Token, test.asked)
		if m != test.want || whole != test.whole || !errors.Is(err, test.err) {
			t.Errorf("%s: %s, %v, %v", test.name, m, whole, err)
		}
		if _, _, err := CopyOf(dir, wire.NewToken(), test.asked); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: another move: %v", test.name, err)
		}
	}
}

// TestPrune forgets what has ended long ago and nothing that is open.
func TestPrune(t *testing.T) {
	alive, _ := child(t)
	dead, kill := child(t)
	kill()
	dir := t.TempDir()
	make := func(side Side, entry handover.Entry, init Process) wire.Token {
		s := State{Token: wire.NewToken(), Side: side, Entry: entry, Init: init}
		if err := Create(dir, s); err != nil {
			t.Fatal(err)
		}
		return s.Token
	}
	ended, open := make(Source, handover.EntryMoved, dead), make(Source, handover.EntryCommitted, alive)
	// Its copy runs and may lack what it holds; were its journal gone, its shim would
	// let it go when its engine dies.
	holds := make(Source, handover.EntryMoved, alive)
	copied := make(Destination, handover.EntryRunning, alive)
	torn := make(Source, handover.EntryCommitted, alive)
	if err := os.WriteFile(Path(dir, torn, Source), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	prune(dir, time.Now().Add(keep/2))
	if _, err := Read(dir, ended, Source); err != nil {
		t.Errorf("too early: %v", err)
	}
	prune(dir, time.Now().Add(2*keep))
	if _, err := Read(dir, ended, Source); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ended long ago: %v", err)
	}
	for _, token := range []wire.Token{open, holds, torn} {
		if _, err := os.Lstat(Path(dir, token, Source)); err != nil {
			t.Errorf("one that is not over is forgotten: %v", err)
		}
	}
	if _, err := Read(dir, copied, Destination); err != nil {
		t.Errorf("the copy runs, and is forgotten: %v", err)
	}
}

// TestRan: what an engine could not write down is noted, and nothing else is changed.
func TestRan(t *testing.T) {
	alive, _ := child(t)
	for _, test := range []struct {
		entry   handover.Entry
		left    bool
		request string
		want    handover.Entry
		lacks   bool
	}{
		{handover.EntryCommitted, false, "restore-1", handover.EntryRunning, false},
		{handover.EntryCommitted, true, "restore-1", handover.EntryRunning, false},
		{handover.EntryRunning, true, "restore-1", handover.EntryRunning, false},
		{handover.EntryLost, true, "restore-1", handover.EntryLost, true},
		{handover.EntryAborted, false, "restore-1", handover.EntryAborted, false},
		{handover.EntryCommitted, true, "restore-2", handover.EntryCommitted, true},
	} {
		dir := t.TempDir()
		s := State{Token: wire.NewToken(), Side: Destination, Request: "restore-1", Entry: test.entry, Engine: alive, Init: alive, Left: test.left}
		if err := Create(dir, s); err != nil {
			t.Fatal(err)
		}
		if err := Ran(dir, s.Token, test.request); err != nil {
			t.Errorf("%+v: %v", test, err)
		}
		if s, err := Read(dir, s.Token, Destination); err != nil || s.Entry != test.want || s.Left != test.lacks {
			t.Errorf("%+v: the journal says %s, left %v, %v", test, s.Entry, s.Left, err)
		}
	}
	if err := Ran(t.TempDir(), wire.NewToken(), "restore-1"); !errors.Is(err, ErrUnknown) {
		t.Errorf("of an unknown move: %v", err)
	}
}

// TestAnswerOnFullDisk: what is settled is answered where nothing can be written, not
// even the lock. What is not is an error, which says nothing about the copy.
func TestAnswerOnFullDisk(t *testing.T) {
	alive, _ := child(t)
	dead, kill := child(t)
	kill()
	for _, test := range []struct {
		entry  handover.Entry
		engine Process
		want   handover.Message
	}{
		{handover.EntryRunning, dead, handover.Running},
		{handover.EntryAborted, dead, handover.Aborted},
		{handover.EntryLost, dead, handover.Lost},
		{handover.EntryNone, alive, handover.Ready},
		{handover.EntryCommitted, alive, handover.Ready},
		{handover.EntryCommitted, dead, 0},
	} {
		dir := t.TempDir()
		s := State{Token: wire.NewToken(), Side: Destination, Entry: test.entry, Engine: test.engine, Init: alive}
		if err := Create(dir, s); err != nil {
			t.Fatal(err)
		}
		// No file can be made where a directory is.
		if err := errors.Join(os.Mkdir(Path(dir, s.Token, Destination)+lockSuffix, 0o700), os.Mkdir(Path(dir, s.Token, Destination)+staged, 0o700)); err != nil {
			t.Fatal(err)
		}
		got, err := Answer(dir, s.Token)
		if got != test.want || (err == nil) != (test.want != 0) || errors.Is(err, ErrUnknown) {
			t.Errorf("%s, engine %v: %s, %v", test.entry, test.engine, got, err)
		}
	}
}

// TestDoomed: from the moment at which kill(2) returns, a process never seems to
// live on, however long its end takes on a busy machine.
func TestDoomed(t *testing.T) {
	for range 200 {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		p, err := ProcessOf(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if traced, killed := p.doomed(); traced || killed || !p.Alive() {
			t.Errorf("a process that lives: traced %v, killed %v, alive %v", traced, killed, p.Alive())
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for p.Alive() {
			if _, killed := p.doomed(); !killed {
				t.Error("a killed process seems to live")
			}
		}
		_ = c.Wait()
	}
	if (Process{Pid: os.Getpid(), Start: 1}).Alive() {
		t.Error("a process with another start lives")
	}
}

// TestStaged: what is prepared counts from its publication on, and a write in
// between replaces it.
func TestStaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	s := State{Token: wire.NewToken(), Side: Source, Container: "web"}
	if err := Create(dir, s); err != nil {
		t.Fatal(err)
	}
	entry := func() handover.Entry {
		got, err := Read(dir, s.Token, Source)
		if err != nil {
			t.Fatal(err)
		}
		return got.Entry
	}
	s.Entry = handover.EntryCommitted
	if err := Stage(dir, s); err != nil || entry() != handover.EntryNone {
		t.Errorf("staged: %v, the journal says %s", err, entry())
	}
	if err := Publish(dir, s); err != nil || entry() != handover.EntryCommitted {
		t.Errorf("published: %v, the journal says %s", err, entry())
	}
	if err := Stage(dir, s); err != nil {
		t.Fatal(err)
	}
	s.Entry = handover.EntryKept
	if err := Write(dir, s); err != nil || entry() != handover.EntryKept {
		t.Errorf("written: %v, the journal says %s", err, entry())
	}
	if err := Publish(dir, s); !errors.Is(err, fs.ErrNotExist) || entry() != handover.EntryKept {
		t.Errorf("published what a write has replaced: %v, the journal says %s", err, entry())
	}
}
