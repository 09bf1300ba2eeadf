// SPDX-License-Identifier: Apache-2.0

// Package uts exports and imports the names of a container's own UTS namespace
// that were changed while it ran. Names that are still those of the
// specification do not travel: the new container's specification says them.
//
// Setting a name needs CAP_SYS_ADMIN, so an image can bring along a name only
// where the live specification gives that. A container without it has a name
// that somebody outside has set, which is not carried.
//
// Sources: uts_namespaces(7), sethostname(2), uname(2); kernel/sys.c.
package uts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "uts"

// KindNames is the one kind of record: state.HostNames, shared, entity 0.
const KindNames = 1

// maxName is the kernel's limit for either name in bytes, __NEW_UTS_LEN of
// include/uapi/linux/utsname.h.
const maxName = 64

// Subsystem is one event's names.
type Subsystem struct {
	env target.Env
	// names are what has arrived, nil if nothing has.
	names *state.HostNames
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// SharedOnly reports that names are the container's.
func (s *Subsystem) SharedOnly() bool { return true }

// Status has nothing to count.
func (s *Subsystem) Status() record.Status { return record.Status{} }

// Fault cannot be served: the record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("uts: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump tells what has arrived.
func (s *Subsystem) Dump(w io.Writer) error {
	if s.names != nil {
		fmt.Fprintf(w, "host name %q, domain name %q\n", s.names.Host, s.names.Domain)
	}
	return nil
}

// names are those of a UTS namespace.
type names struct{ host, domain string }

// inside runs fn in the UTS namespace of a process.
func inside(pid int, fn func() error) error {
	return target.InNamespace(procfs.Host().Process(pid).Path("ns/uts"), fn)
}

// namesOf are the names that a process sees.
func namesOf(pid int) (n names, err error) {
	err = inside(pid, func() (err error) { n, err = ownNames(); return err })
	return n, err
}

func ownNames() (names, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return names{}, os.NewSyscallError("uname", err)
	}
	return names{unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Domainname[:])}, nil
}

// changed compares what is with what the specification, or else the host, gave.
func (s *Subsystem) changed() (*state.HostNames, error) {
	own := s.env.Source.UTS
	if own == nil {
		return nil, nil
	}
	is, err := namesOf(s.env.Source.Init)
	if err != nil {
		return nil, err
	}
	host, err := ownNames()
	if err != nil {
		return nil, err
	}
	return difference(is, names{own.Host, own.Domain}, host), nil
}

// difference is nil if there is none.
func difference(is, spec, host names) *state.HostNames {
	if spec.host == "" {
		spec.host = host.host
	}
	if spec.domain == "" {
		spec.domain = host.domain
	}
	var m state.HostNames
	if is.host != spec.host {
		m.Host = []byte(is.host)
	}
	if is.domain != spec.domain {
		m.Domain = []byte(is.domain)
	}
	if m.Host == nil && m.Domain == nil {
		return nil
	}
	return &m
}

// mayCarry: processes of the container can set the names.
func (s *Subsystem) mayCarry() bool {
	a := s.env.Source.Allowed
	return a == nil || a.CanReach(unix.CAP_SYS_ADMIN)
}

// Preflight warns of a name that is not carried.
func (s *Subsystem) Preflight(context.Context) ([]record.Finding, error) {
	m, err := s.changed()
	if err != nil {
		return nil, fmt.Errorf("uts: %w", err)
	}
	if m == nil || s.mayCarry() {
		return nil, nil
	}
	return []record.Finding{{
		Pid: s.env.Source.Init, FD: -1, Subsystem: Name, Warning: true, What: "host or domain name",
		Why: "it was changed from outside, since the container may not do so: a restored container has the name of its specification",
	}}, nil
}

// Checkpoint exports the names.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared {
		return record.Progress{Done: true}, nil
	}
	m, err := s.changed()
	if err != nil {
		return record.Progress{}, fmt.Errorf("uts: %w", err)
	}
	if m != nil && s.mayCarry() {
		b, err := proto.Marshal(m)
		if err != nil {
			return record.Progress{}, fmt.Errorf("uts: %w", err)
		}
		if err := out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: KindNames}, Payload: b}); err != nil {
			return record.Progress{}, err
		}
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// Restart imports.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var err error
	switch {
	case step.Stage == record.StageReceive:
		err = s.receive(in)
	case step.Stage == record.StageBuild && step.Process == record.Shared:
		err = s.set()
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("uts: %w", err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

func (s *Subsystem) receive(r *record.Record) error {
	if r.Kind != KindNames || r.Process != record.Shared || s.names != nil {
		return fmt.Errorf("%s: this kind is not known, or came already", r.Header)
	}
	m := &state.HostNames{}
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return fmt.Errorf("%s: %w", r.Header, err)
	}
	if len(m.Host) > maxName || len(m.Domain) > maxName {
		return fmt.Errorf("%s: names of %d and %d bytes, at most %d", r.Header, len(m.Host), len(m.Domain), maxName)
	}
	s.names = m
	return nil
}

// set gives the new container the names, where its specification would let it
// set them.
func (s *Subsystem) set() error {
	f := s.env.Frame
	if s.names == nil || !f.OwnUTS || !f.Allowed.CanReach(unix.CAP_SYS_ADMIN) {
		return nil
	}
	if err := notOurs(f.Init); err != nil {
		return err
	}
	return inside(f.Init, func() error {
		if s.names.Host != nil {
			if err := unix.Sethostname(s.names.Host); err != nil {
				return os.NewSyscallError("sethostname", err)
			}
		}
		if s.names.Domain != nil {
			return os.NewSyscallError("setdomainname", unix.Setdomainname(s.names.Domain))
		}
		return nil
	})
}

// notOurs makes sure that no name of the host is changed, whatever the
// specification says.
func notOurs(pid int) error {
	var theirs, ours unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/uts", pid), &theirs); err != nil {
		return err
	}
	if err := unix.Stat("/proc/self/ns/uts", &ours); err != nil {
		return err
	}
	if theirs.Ino == ours.Ino {
		return errors.New("the container has no UTS namespace of its own, against its specification")
	}
	return nil
}
