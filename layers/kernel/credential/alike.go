// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// Each call that changes credentials copies them, and ten thousand threads make a
// dozen. Most have nothing to change but their sets: they were made by the leader of
// the frame with the ids, groups and secure bits that the live spec gives, which are
// those of most images.

// beginning is what all threads of a frame begin with, as its leader shows it.
type beginning struct {
	*procfs.Status
	uids, gids []procfs.IDMap
	secureBits int64 // -1: not known

	last *state.ThreadCredential // what alike was asked about, and what it said
	said bool
}

// begin looks at the leader, closely if there are others.
func begin(t *target.Task, now *procfs.Status, threads int) (*beginning, error) {
	b := &beginning{Status: now, secureBits: -1}
	if threads < narrowFrom {
		return b, nil
	}
	var err error
	if b.uids, err = t.Proc.UIDMap(); err != nil {
		return nil, err
	}
	if b.gids, err = t.Proc.GIDMap(); err != nil {
		return nil, err
	}
	calls := []tracer.Call{tracer.Prctl(unix.PR_GET_SECUREBITS)}
	if err := t.Run(calls); err != nil {
		return nil, err
	}
	b.secureBits = calls[0].Ret
	return b, nil
}

// alike: a thread is to have the ids, groups, secure bits and bounding set that it has
// already, no ambient capability, and none to inherit that it may not add to those as it
// is (cap_capset in security/commoncap.c).
func (b *beginning) alike(m *state.ThreadCredential) bool {
	if b.last == nil || !sameRights(b.last, m) {
		b.last, b.said = m, b.compare(m)
	}
	return b.said
}

func (b *beginning) compare(m *state.ThreadCredential) bool {
	c := b.Cap
	if b.secureBits != int64(m.SecureBits) || c.Ambient|m.Ambient|c.Bounding&^m.Bounding != 0 ||
		m.Inheritable&^(c.Inheritable|c.Permitted&c.Bounding) != 0 {
		return false
	}
	ids := func(i procfs.IDs) []uint32 { return []uint32{i.Real, i.Effective, i.Saved, i.FS} }
	return slices.Equal(ids(b.UID), outer(b.uids, list(m.Uid))) && slices.Equal(ids(b.GID), outer(b.gids, list(m.Gid))) &&
		slices.Equal(slices.Sorted(slices.Values(b.Groups)), slices.Sorted(slices.Values(outer(b.gids, m.Group))))
}

// sameRights: two threads do not differ in what alike looks at.
func sameRights(a, b *state.ThreadCredential) bool {
	return a.SecureBits == b.SecureBits && a.Bounding == b.Bounding && a.Ambient == b.Ambient && a.Inheritable == b.Inheritable &&
		slices.Equal(list(a.Uid), list(b.Uid)) && slices.Equal(list(a.Gid), list(b.Gid)) && slices.Equal(a.Group, b.Group)
}
