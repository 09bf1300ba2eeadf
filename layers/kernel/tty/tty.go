// SPDX-License-Identifier: Apache-2.0

// Package tty exports and imports pseudoterminals: their modes and sizes, what
// is unread in them, and their ends, which are open file descriptions of the
// master, the slave and /dev/tty.
//
// Which terminals there are, whose controlling terminals they are, and which
// process groups are in their foreground travels with the process tree (package
// task): processes inherit a controlling terminal when they are made.
//
// A terminal of which both ends are in the container is made again under its
// number. The container's own, whose master the runtime has, is the one that
// the new container was created with. One whose master is gone, or with somebody
// outside (the client of a session of exec), is made and hung up before the
// container runs: its processes find what they would have found if their client
// had gone away.
//
// Lost are: a line that is not complete, unless whole ones are unread before it
// (the kernel does not tell that it is there); that output was stopped by Ctrl-S, a control byte of packet mode
// that was not read, and that a character was to be taken literally (Ctrl-V).
//
// Sources: pty(7), ioctl_tty(2), termios(3); drivers/tty/pty.c, tty_io.c,
// tty_jobctrl.c, n_tty.c, fs/devpts/inode.c.
package tty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "tty"

// Kinds of the subsystem's records, see spec/state/tty.proto.
const (
	KindTerminal = 1
	KindEnd      = 2
)

// Subsystem is one event's terminals.
type Subsystem struct {
	env target.Env

	entities atomic.Uint64

	mu sync.Mutex // guards what arrives
	// terminals by their index, ends by the ids of their descriptions.
	terminals map[int]*state.Terminal
	ends      map[uint64]*state.TerminalEnd
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	return &Subsystem{env: env, terminals: map[int]*state.Terminal{}, ends: map[uint64]*state.TerminalEnd{}}
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// SharedOnly reports that terminals are the container's.
func (s *Subsystem) SharedOnly() bool { return true }

// Status counts terminals and their ends.
func (s *Subsystem) Status() record.Status { return record.Status{Entities: s.entities.Load()} }

// Fault cannot be served: every record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("tty: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what the import knows.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range slices.Sorted(maps.Keys(s.terminals)) {
		t := s.terminals[i]
		fmt.Fprintf(w, "terminal pts/%d: locked %v, packet mode %v, %d bytes of input and %d of output\n", i, t.Locked, t.Packet, len(t.Input), len(t.Output))
	}
	for _, id := range slices.Sorted(maps.Keys(s.ends)) {
		e := s.ends[id]
		fmt.Fprintf(w, "description %d: %v of pts/%d, %s, flags %#o\n", id, e.Side, e.Index, e.Path, e.Flags)
	}
	return nil
}

// refusal is something that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }
