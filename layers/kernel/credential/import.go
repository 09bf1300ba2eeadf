// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Restart keeps the records, compares them with what is allowed in StageBuild,
// sets credentials in StageSettle, and lowers limits in StageResume, when
// nobody needs room any more. At the end everything is checked.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{Done: true, Advanced: true, Entities: 1}, s.receive(in)
	}
	if step.Process == record.Shared || step.Stage == record.StageJoin {
		return record.Progress{Done: true}, nil
	}
	t, err := s.env.Frame.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("credential: %w", err)
	}
	s.mu.Lock()
	k := s.kept[step.Process]
	s.mu.Unlock()
	if k == nil || k.process == nil || len(k.threads) == 0 {
		return record.Progress{}, fmt.Errorf("%w: process %d is not whole", errImage, step.Process)
	}
	switch step.Stage {
	case record.StageBuild:
		for _, step := range []func(*target.Task, *saved) error{permit, narrow, loadCommon} {
			if err = step(t, k); err != nil {
				break
			}
		}
	case record.StageSettle:
		err = settle(t, k)
		s.threads.Add(uint64(len(k.threads)))
	case record.StageResume:
		if err = setLimits(t, k.process.Limit); err == nil {
			err = verify(s.env, t, k)
		}
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("credential: process %d: %w", step.Process, err)
	}
	return record.Progress{Done: true, Advanced: true, Entities: uint64(len(k.threads))}, nil
}

// permit refuses an image that asks for too much, before anything is set.
func permit(t *target.Task, k *saved) error {
	b := newBounds(t.Allowed())
	frame, err := t.Proc.Limits()
	if err != nil {
		return err
	}
	if err := b.limits(k.process.Limit, &frame); err != nil {
		return err
	}
	st, err := t.Proc.Status()
	if err != nil {
		return err
	}
	for _, m := range k.threads {
		if err := b.thread(m); err != nil {
			return err
		}
		if err := k.chain(m); err != nil {
			return err
		}
		if mode, filters := beneath(m); !sameSeccomp(mode, filters, &st) {
			return fmt.Errorf("thread %d ran under seccomp mode %d with %d filters of its spec, the spec of this request gives mode %d with %d: restore with the spec it was started with",
				m.Tid, mode, filters, st.Seccomp, st.SeccompFilters)
		}
	}
	return nil
}

// sameSeccomp compares a task's mode and number of filters.
func sameSeccomp(mode, filters int, st *procfs.Status) bool {
	if st.SeccompFilters >= 0 && mode == procfs.SeccompFilter && st.SeccompFilters != filters {
		return false // not shown before Linux 5.9
	}
	return st.Seccomp == mode
}

func (s *Subsystem) receive(in *record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Process == record.Shared {
		return fmt.Errorf("%w: %s belongs to no process", errImage, in.Header)
	}
	k := s.kept[in.Process]
	if k == nil {
		k = &saved{}
		s.kept[in.Process] = k
	}
	var err error
	switch in.Kind {
	case KindProcess:
		err = k.setProcess(in.Payload)
	case KindThreads:
		err = k.addThreads(in.Payload)
	case KindFilter:
		err = k.addFilter(in.Entity, in.Payload)
	default:
		err = fmt.Errorf("%w: this version knows no such kind", errImage)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in.Header, err)
	}
	return nil
}

func (k *saved) setProcess(payload []byte) error {
	m := &state.ProcessLimits{}
	if err := proto.Unmarshal(payload, m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	if len(m.Limit) != procfs.NumLimits || m.Dumpable > 2 {
		return fmt.Errorf("%w: %d limits, dumpable %d", errImage, len(m.Limit), m.Dumpable)
	}
	for r, l := range m.Limit {
		if l.Soft > l.Hard {
			return fmt.Errorf("%w: soft limit RLIMIT_%s of %s above the hard one of %s", errImage, limitNames[r], limitText(l.Soft), limitText(l.Hard))
		}
	}
	k.process = m
	return nil
}

// Secure bits of include/uapi/linux/securebits.h.
const (
	secbitNoSetuidFixup = 1 << 2
	secbitKeepCaps      = 1 << 4
	// secbits are all bits, those that lock another included.
	secbits = 0xff
)

func (k *saved) addThreads(payload []byte) error {
	var m state.ThreadCredentials
	if err := proto.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	if len(k.threads)+len(m.Thread) > maxThreads {
		return fmt.Errorf("%w: more than %d threads", errImage, maxThreads)
	}
	for _, th := range m.Thread {
		if err := valid(th); err != nil {
			return err
		}
	}
	k.threads = append(k.threads, m.Thread...)
	return nil
}

// valid checks what no task can have. (Permitted, inheritable and bounding
// sets may each hold what the others lack.)
func valid(m *state.ThreadCredential) error {
	bad := func(what string) error { return fmt.Errorf("%w: thread %d: %s", errImage, m.Tid, what) }
	switch {
	case m.Tid <= 0 || m.Tid > maxThreads:
		return bad("no such id can be")
	case m.Uid == nil || m.Gid == nil:
		return bad("ids are missing")
	case len(m.Group) > maxGroups:
		return bad(fmt.Sprintf("%d groups", len(m.Group)))
	case m.Effective&^m.Permitted != 0:
		return bad("effective capabilities that are not permitted: " + capabilities(m.Effective&^m.Permitted))
	case m.Ambient&^(m.Permitted&m.Inheritable) != 0:
		return bad("ambient capabilities that are not permitted and inheritable: " + capabilities(m.Ambient&^(m.Permitted&m.Inheritable)))
	case m.SecureBits&^secbits != 0:
		return bad(fmt.Sprintf("secure bits %#x", m.SecureBits))
	}
	for _, id := range append(append(list(m.Uid), list(m.Gid)...), m.Group...) {
		if id == ^uint32(0) {
			return bad("-1 as an id")
		}
	}
	return validSeccomp(m)
}
