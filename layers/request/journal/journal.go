// SPDX-License-Identifier: Apache-2.0

// Package journal keeps what both sides of a move must not forget between READY
// and the end (package handover): one small file for each token and side.
//
// A journal must survive the death of any process of ours, in the middle of a
// write too: hence the rename. It need not survive the kernel, with which the
// container's processes end, so nothing is fsync'ed: that would be milliseconds
// of the downtime where /run is on a disk. What a host does not remember after it
// was started anew it answers with "unknown" (ErrUnknown), which frees nobody.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/spec/wire"
)

// Dir is where journals are.
const Dir = "/run/mig/journal"

// Side says whose journal it is.
type Side string

// The sides.
const (
	Source      Side = "source"
	Destination Side = "destination"
)

// State is one side of one move: the last entry and what is needed to act on it.
type State struct {
	Token wire.Token     `json:"-"`
	Side  Side           `json:"side"`
	Entry handover.Entry `json:"entry"`
	// Container and Namespace as containerd names them, Request the request.
	Container string `json:"container"`
	Namespace string `json:"namespace"`
	Request   string `json:"request,omitempty"`
	// Image is the address that the engine was given: a source's leads to the
	// destination.
	Image string `json:"image"`
	// Engine does the move; Init is the container's first process, or the frame's.
	Engine Process `json:"engine"`
	Init   Process `json:"init"`
	// Freezer is the container's cgroup, and Tasks the number of processes that a
	// whole copy has (known from COMMITTED on).
	Freezer string `json:"freezer,omitempty"`
	Tasks   int    `json:"tasks,omitempty"`
	// Left: state was left behind at the switch and has not all arrived. The
	// source's tasks hold it.
	Left    bool      `json:"left,omitempty"`
	Updated time.Time `json:"updated"`
}

// maxFile bounds a file, in bytes, keep how long an ended one is remembered and
// maxFiles how many there may be.
const (
	maxFile  = 64 << 10
	keep     = 7 * 24 * time.Hour
	maxFiles = 10_000
)

// ErrExists is wrapped by Create for a token that was used before.
var ErrExists = errors.New("the move has a journal already")

// Path of a journal's file.
func Path(dir string, token wire.Token, side Side) string {
	return filepath.Join(dir, token.String()+"."+string(side))
}

// Create begins a journal. One token moves one container once.
func Create(dir string, s State) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	prune(dir, time.Now())
	path := Path(dir, s.Token, s.Side)
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("move %s: %w: ask for a new token", s.Token, ErrExists)
	}
	return Write(dir, s)
}

// Write replaces the journal. It outlives this process when it returns.
func Write(dir string, s State) error {
	if err := Stage(dir, s); err != nil {
		return err
	}
	return Publish(dir, s)
}

// Stage prepares a Write for Publish, for whoever has time now and none then.
// Until then the journal says what it did, and any other Write replaces what was
// prepared.
func Stage(dir string, s State) error {
	s.Updated = time.Now()
	b, err := json.Marshal(s)
	if err == nil {
		err = writeNew(Path(dir, s.Token, s.Side)+staged, b)
	}
	return named(s, err)
}

// staged ends the name of what Publish renames.
const staged = ".new"

// Publish replaces the journal by what Stage has prepared last for this move and
// side.
func Publish(dir string, s State) error {
	path := Path(dir, s.Token, s.Side)
	err := os.Rename(path+staged, path)
	if err != nil {
		_ = os.Remove(path + staged)
	}
	return named(s, err)
}

func named(s State, err error) error {
	if err != nil {
		return fmt.Errorf("journal of move %s: %w", s.Token, err)
	}
	return nil
}

// replace has a file hold b, whatever happens to this process meanwhile.
func replace(path string, b []byte) error {
	if err := writeNew(path+staged, b); err != nil {
		return err
	}
	return os.Rename(path+staged, path)
}

func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}

// Read returns a journal. fs.ErrNotExist: there is none.
func Read(dir string, token wire.Token, side Side) (State, error) {
	s := State{Token: token, Side: side}
	f, err := os.OpenFile(Path(dir, token, side), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return s, fmt.Errorf("journal of move %s: %w", token, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil && s.Side != side {
		err = fmt.Errorf("it is that of the %q", s.Side)
	}
	if err != nil {
		return s, fmt.Errorf("journal of move %s: %w", token, err)
	}
	return s, nil
}

// Lock keeps others who recover the same move out until unlock is called.
func Lock(dir string, token wire.Token, side Side) (unlock func(), err error) {
	f, err := os.OpenFile(Path(dir, token, side)+lockSuffix, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the journal of move %s: %w", token, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the journal of move %s: %w", token, err)
	}
	return func() { f.Close() }, nil
}

const (
	lockSuffix  = ".lock"
	forceSuffix = ".force"
)

// ErrNoDoubt is wrapped by Force where COMMIT was not sent, or was answered.
var ErrNoDoubt = errors.New("it is not in doubt what became of the copy")

// Force says that a person has made sure that the copy is dead: the source may
// go on. Whoever resolves the move finds it. It is about a COMMIT that was sent: what a
// person says before that must not free a source that sends it afterwards.
//
// Errors: fs.ErrNotExist, there is no such source here; ErrNoDoubt.
func Force(dir string, token wire.Token) error {
	s, err := Read(dir, token, Source)
	if err != nil {
		return err
	}
	if s.Entry != handover.EntryCommitted {
		return fmt.Errorf("move %s: %w", token, ErrNoDoubt)
	}
	return replace(Path(dir, token, Source)+forceSuffix, nil)
}

// Forced reports whether a person said so.
func Forced(dir string, token wire.Token) bool {
	_, err := os.Lstat(Path(dir, token, Source) + forceSuffix)
	return err == nil
}

// ended: nothing follows, and the other side does not need it much longer. A source that
// has moved is ended when its process is: that may hold what the copy still lacks, and
// without the journal it would be taken for one that never moved, and let go. Neither is
// it denied of a copy that runs that it does.
func (s State) ended() bool {
	switch s.Entry {
	case handover.EntryMoved, handover.EntryRunning:
		return !s.Init.Alive()
	case handover.EntryKept, handover.EntryAborted:
		return true
	}
	return false
}

// prune forgets moves that have ended long ago, or, where there are very many,
// those that have ended at all. What is open, or cannot be read, is never forgotten:
// "long ago" may be a clock that was set a moment ago.
func prune(dir string, now time.Time) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range es {
		name, side, ok := strings.Cut(e.Name(), ".")
		token, err := wire.ParseToken(name)
		if !ok || err != nil || side != string(Source) && side != string(Destination) {
			continue
		}
		info, err := e.Info()
		if err != nil || len(es) < maxFiles && now.Sub(info.ModTime()) < keep {
			continue
		}
		if s, err := Read(dir, token, Side(side)); err == nil && (s.ended() || !s.Engine.Alive() && !s.Init.Alive()) {
			remove(dir, token, Side(side))
		}
	}
}

func remove(dir string, token wire.Token, side Side) {
	path := Path(dir, token, side)
	for _, suffix := range []string{"", lockSuffix, forceSuffix, staged} {
		_ = os.Remove(path + suffix)
	}
}
