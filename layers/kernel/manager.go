// SPDX-License-Identifier: Apache-2.0

// Package kernel is the kernel subsystem layer: it knows the subsystems by
// name and makes one set of instances for each event. The subsystems are
// sub-packages, one for each kind of kernel state.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Subsystem is what control consumes (the paper's Table 1), declared again so
// that this layer need not import control.
type Subsystem interface {
	Name() string
	Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error)
	Restart(ctx context.Context, step record.Step, in *record.Record) (record.Progress, error)
	Fault(ctx context.Context, f record.Fault) error
	Status() record.Status
	Dump(w io.Writer) error
}

// Entry is an inserted subsystem.
type Entry struct {
	// Name of its records.
	Name string
	// Version of their format. A reader refuses an image with a newer one.
	Version uint32
	// NoRecords: the subsystem only looks in the pre-flight, so an image does
	// not need it.
	NoRecords bool
	// Needed reports whether a container with these file systems may have anything of
	// its kind, so that a reader has to know it: one of before it was invented takes the
	// others. nil: any container may.
	Needed func(files *target.Files) bool
	// New makes an instance for one event.
	New func(env target.Env) Subsystem
}

// Errors that callers tell apart.
var (
	ErrUnknown = errors.New("unknown subsystem")
	ErrInUse   = errors.New("subsystem is in use")
)

// Manager holds the subsystems in the order in which they export and import.
// They are inserted and removed while the system runs; events that have begun
// keep the instances they have. Its methods are safe for concurrent use.
type Manager struct {
	mu      sync.Mutex
	entries []Entry
}

// Insert adds a subsystem behind those that are there: its state may depend on
// theirs.
func (m *Manager) Insert(e Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Name == "" || len(e.Name) > record.MaxSubsystem || e.Version == 0 || e.New == nil {
		return fmt.Errorf("subsystem %q: a name of 1 to %d bytes, a version and a constructor are needed", e.Name, record.MaxSubsystem)
	}
	for _, known := range m.entries {
		if known.Name == e.Name {
			return fmt.Errorf("subsystem %q is inserted already: remove it first", e.Name)
		}
	}
	m.entries = append(m.entries, e)
	return nil
}

// Remove takes a subsystem out. Containers with its kind of state can then
// neither be exported nor imported: the pre-flight names what is missing.
func (m *Manager) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range m.entries {
		if e.Name == name {
			m.entries = append(m.entries[:i:i], m.entries[i+1:]...)
			return nil
		}
	}
	return m.unknown(name)
}

// List returns the subsystems in order.
func (m *Manager) List() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Entry(nil), m.entries...)
}

// Instances makes one instance of each subsystem for an event.
func (m *Manager) Instances(env target.Env) []Subsystem {
	var out []Subsystem
	for _, e := range m.List() {
		out = append(out, e.New(env))
	}
	return out
}

// Accepts checks the subsystems of an image or a peer against ours: each must
// be known, in a version that is not newer. All that are not are named.
func (m *Manager) Accepts(name string, version uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		switch {
		case e.Name != name:
		case version > e.Version:
			return fmt.Errorf("subsystem %q: its records have format version %d, this mig knows up to %d: use a newer mig", name, version, e.Version)
		default:
			return nil
		}
	}
	return m.unknown(name)
}

// unknown is called with the lock held.
func (m *Manager) unknown(name string) error {
	var known []string
	for _, e := range m.entries {
		known = append(known, e.Name)
	}
	return fmt.Errorf("%w %q: inserted are %s", ErrUnknown, name, strings.Join(known, ", "))
}
