// SPDX-License-Identifier: Apache-2.0

// Package cgroup exports and imports the cgroups that a container has made below
// its own, in every hierarchy in which it has one: names, owners and permissions,
// settings, and which process, or thread, is in which. It does so where the live
// specification mounts cgroups writable; what somebody else has made below a
// container's cgroup is not the container's, and a warning says that it is lost.
//
// The container's own cgroup, with its limits, is made by the runtime from the live
// specification. An import makes the others below it as the image says, which is
// within it by the kernel's rules: a cgroup never has more than the one above.
// They are made when all processes and threads are there and before any affinity
// is set, which a cpuset would change; the processes were in the container's own
// until then, to which what they have of memory is charged.
//
//	made -> kinds -> (v1: settings) -> tasks -> subtree_control -> (v2: settings) -> owners
//
// The order is the kernel's: a cpuset without processors takes no task, and a cgroup
// of version 2 that has tasks of its own gives its children no controller.
//
// Sources: Documentation/admin-guide/cgroup-v2.rst, the directory cgroup-v1, and
// cgroups(7); kernel/cgroup/*.c.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "cgroup"

// KindHierarchy is the one kind of record: state.Hierarchy, shared; the entity is
// its number.
const KindHierarchy = 1

// Subsystem is one event's cgroups.
type Subsystem struct {
	env target.Env
	// hierarchies are what has arrived, by their numbers.
	hierarchies []*state.Hierarchy
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// SharedOnly reports that cgroups are the container's.
func (s *Subsystem) SharedOnly() bool { return true }

// Status has nothing to count.
func (s *Subsystem) Status() record.Status { return record.Status{} }

// Fault cannot be served: the records exist once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("cgroup: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump tells what has arrived.
func (s *Subsystem) Dump(w io.Writer) error {
	for _, h := range s.hierarchies {
		fmt.Fprintf(w, "%s: %d cgroups below the container's own\n", hierarchy(h.Controller), len(h.Cgroup))
	}
	return nil
}

// trees are those hierarchies in which there is something below the container's
// own cgroup. It costs one stat(2) for each where there is nothing.
func (s *Subsystem) trees() ([]*tree, error) {
	src := s.env.Source
	list, err := places(src.Cgroups)
	if err != nil {
		return nil, err
	}
	var out []*tree
	for _, p := range list {
		if !p.children || p.root() {
			continue
		}
		t, err := read(p, procfs.Host().Process(src.Init))
		if err != nil {
			return nil, err
		}
		if len(t.Cgroup) > 0 {
			out = append(out, t)
		}
	}
	return out, nil
}

// carried are the trees that the container can have made.
func (s *Subsystem) carried() ([]*tree, error) {
	if !Needed(&s.env.Source.Files) {
		return nil, nil
	}
	trees, err := s.trees()
	if err != nil {
		return nil, err
	}
	var out []*tree
	for _, t := range trees {
		made, err := s.made(t)
		if err != nil {
			return nil, err
		}
		if made {
			out = append(out, t)
		}
	}
	return out, nil
}

// Checkpoint exports.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared {
		return record.Progress{Done: true}, nil
	}
	if err := s.export(ctx, out); err != nil {
		return record.Progress{}, fmt.Errorf("cgroup: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

func (s *Subsystem) export(ctx context.Context, out record.Sink) error {
	trees, err := s.carried()
	if err != nil || len(trees) == 0 {
		return err
	}
	byTid, count, err := threadsOf(s.env.Source.Processes())
	if err != nil {
		return err
	}
	for n, t := range trees {
		if len(t.frozen) > 0 {
			return fmt.Errorf("%s: %s is frozen: %s", t.place, t.frozen[0], remedyFrozen)
		}
		if err := t.members(byTid, count); err != nil {
			return fmt.Errorf("%s: who is in which cgroup: %w", t.place, err)
		}
		b, err := proto.Marshal(t.Hierarchy)
		if err != nil {
			return err
		}
		if len(b) > record.MaxPayload {
			return fmt.Errorf("%s: what the container has made takes %d bytes to tell, the limit is %d", t.place, len(b), record.MaxPayload)
		}
		if err := out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: KindHierarchy, Entity: uint64(n)}, Payload: b}); err != nil {
			return err
		}
	}
	return nil
}

// Restart imports.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Stage == record.StageSettle && step.Process == record.Shared:
		err = s.make()
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("cgroup: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// maxHierarchies is more than a kernel has controllers.
const maxHierarchies = 32

func (s *Subsystem) receive(r *record.Record) error {
	if n := len(s.hierarchies); r.Kind != KindHierarchy || r.Process != record.Shared || r.Entity != uint64(n) || n == maxHierarchies {
		return fmt.Errorf("%s: this kind is not known, or it comes out of turn", r.Header)
	}
	h, err := decode(r.Payload)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	// Before anything is built where it cannot be.
	if err := s.allowed(h); err != nil {
		return err
	}
	s.hierarchies = append(s.hierarchies, h)
	return nil
}
