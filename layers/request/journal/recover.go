// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/spec/wire"
)

// ErrUnknown is wrapped where this host knows nothing of a move: it may have
// been started anew since, so that nothing follows for the copy.
var ErrUnknown = errors.New("this host does not know the move")

// settleTime bounds how long a dead engine's tasks may take to follow it.
const settleTime = 2 * time.Second

// Answer is what the destination says about a move now, for a source that asks:
// Ready while its engine is at it, else Running, Aborted or Lost. If the engine
// has died it is recovered first, here: the frame of an engine dies with it
// (EXITKILL) as long as no task was let go, which COMMITTED announces.
//
// Errors: ErrUnknown; or the journal cannot be read or written, which says
// nothing about the copy.
func Answer(dir string, token wire.Token) (handover.Message, error) {
	m, _, err := AnswerWhole(dir, token)
	return m, err
}

// CopyOf says what became of the copy that a request of this host was to make, whose
// engine has ended without telling. It is what decides, and not the request's own
// outcome: that of an engine which died when the copy ran is a failure.
//
// Errors: those of Answer; ErrUnknown, too, where the request did not come so far.
func CopyOf(dir string, token wire.Token, request string) (m handover.Message, whole bool, err error) {
	if s, err := readCopy(dir, token); errors.Is(err, ErrUnknown) {
		return 0, false, err
	} else if err == nil && s.Request != request {
		return 0, false, ErrUnknown
	}
	return AnswerWhole(dir, token)
}

// Ran notes that the copy of a request runs and has everything, as its engine has told, if
// the engine could not write that down (a full disk): later it could only be inferred from
// who lives, and of a program some of whose processes have ended by then it would be
// wrong. It writes nothing where that is known, or where the journal is not of this request.
func Ran(dir string, token wire.Token, request string) error {
	unwritten := func(s State) bool {
		return s.Entry == handover.EntryCommitted || s.Entry == handover.EntryRunning && s.Left
	}
	if s, err := readCopy(dir, token); err != nil || s.Request != request || !unwritten(s) {
		return err
	}
	unlock, err := Lock(dir, token, Destination)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := readCopy(dir, token)
	if err != nil || !unwritten(s) {
		return err
	}
	s.Entry, s.Left = handover.EntryRunning, false
	return Write(dir, s)
}

// Stays says whether a source's container goes on here for good, as far as the move with
// this token is concerned. final is whether that can still change: its engine is at it.
// An error says nothing.
func Stays(dir string, token wire.Token) (stays, final bool, err error) {
	s, err := Read(dir, token, Source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, true, nil // its engine did not come so far
	case err != nil:
		return false, false, err
	case s.Entry == handover.EntryKept:
		return true, true, nil
	case s.Entry == handover.EntryMoved:
		return false, true, nil
	}
	dead := !s.Engine.Alive()
	return s.Entry == handover.EntryNone && dead, dead, nil
}

// AnswerWhole says beside Answer whether the copy has everything: false where
// what was left behind at the switch has not all come. What is settled, or in the hands
// of an engine that lives, it only reads: that works on a full disk, too.
func AnswerWhole(dir string, token wire.Token) (m handover.Message, whole bool, err error) {
	s, err := readCopy(dir, token)
	if err != nil {
		return 0, false, err
	}
	if s.recoverable() {
		unlock, err := Lock(dir, token, Destination)
		if err != nil {
			return 0, false, err
		}
		defer unlock()
		if s, err = readCopy(dir, token); err != nil { // another may have recovered it
			return 0, false, err
		}
	}
	if s.open() && s.Engine.Alive() {
		return handover.Ready, !s.Left, nil
	}
	_, actions := handover.RecoverDestination(s.Entry, s.whole())
	said := handover.Message(0)
	for _, a := range actions {
		switch a.Verb {
		case handover.Journal:
			s.Entry = a.Entry
			if err := Write(dir, s); err != nil {
				return 0, false, err
			}
		case handover.Send:
			said = a.Message
		}
	}
	return said, !s.Left, nil
}

func readCopy(dir string, token wire.Token) (State, error) {
	s, err := Read(dir, token, Destination)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(ErrUnknown, err)
	}
	return s, err
}

// open: the copy's engine has not written down what became of it.
func (s State) open() bool {
	return s.Entry == handover.EntryNone || s.Entry == handover.EntryCommitted
}

// recoverable: and never will.
func (s State) recoverable() bool { return s.open() && !s.Engine.Alive() }

// whole reports whether the copy of a dead engine runs: its first process lives,
// untraced and not about to die, and none of the others is missing. It waits for
// those that die with their engine.
func (s State) whole() bool {
	if s.Entry != handover.EntryCommitted {
		return false
	}
	for end := time.Now().Add(settleTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !s.Init.Alive() {
			return false
		}
		if traced, killed := s.Init.doomed(); traced || killed {
			continue
		}
		return s.Count() >= s.Tasks
	}
	return false
}

// Count is the number of processes in the container's cgroup and in those below.
func (s State) Count() (n int) {
	// What cannot be read, or is gone, has nobody.
	_ = filepath.WalkDir(s.Freezer, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			n += len(bytes.Fields(b))
		}
		return nil
	})
	return n
}
