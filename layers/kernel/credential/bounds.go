// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// bounds is how far a process that the live spec starts could get.
type bounds struct {
	target.Allowed
	// permitted is what it could have in its permitted set: the bounding set,
	// by executing a file as root; as a user or with no_new_privs what it starts
	// with.
	permitted uint64
	// inheritable likewise: capset(2) lets a thread add what it is permitted,
	// with CAP_SETPCAP whatever is in its bounding set.
	inheritable uint64
	// anyUID, anyGID: it can take any id.
	anyUID, anyGID bool
	// secureBits: it can change its secure bits (CAP_SETPCAP).
	secureBits bool
	// filters: it can load a seccomp filter without no_new_privs, which would
	// deceive programs that gain privileges by an exec (CAP_SYS_ADMIN).
	filters bool
}

func newBounds(a target.Allowed) bounds {
	b := bounds{Allowed: a, permitted: a.Bounding, inheritable: a.Bounding | a.Inheritable}
	if a.NoNewPrivileges || a.UID != 0 {
		b.permitted = a.Permitted
		b.inheritable = a.Inheritable | a.Permitted
		if a.Permitted>>unix.CAP_SETPCAP&1 != 0 {
			b.inheritable |= a.Bounding
		}
	}
	// An image never gets what the bounding set lacks, however the spec is
	// written.
	b.permitted &= a.Bounding
	b.inheritable &= a.Bounding
	grants := func(n int) bool {
		own := a.Effective | a.Permitted
		if a.UID == 0 && !a.NoNewPrivileges {
			own |= a.Bounding
		}
		return own>>n&1 != 0
	}
	b.anyUID, b.anyGID, b.secureBits = grants(unix.CAP_SETUID), grants(unix.CAP_SETGID), grants(unix.CAP_SETPCAP)
	b.filters = grants(unix.CAP_SYS_ADMIN)
	return b
}

func beyond(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBeyondSpec}, args...)...)
}

// thread checks what an image asks for one thread.
func (b *bounds) thread(m *state.ThreadCredential) error {
	for _, set := range []struct {
		name        string
		want, limit uint64
	}{
		{"bounding", m.Bounding, b.Bounding}, {"permitted", m.Permitted, b.permitted}, {"effective", m.Effective, b.permitted},
		{"inheritable", m.Inheritable, b.inheritable}, {"ambient", m.Ambient, b.permitted},
	} {
		if more := set.want &^ set.limit; more != 0 {
			return beyond("thread %d: %s set with %s; allowed are %s", m.Tid, set.name, capabilities(more), capabilities(set.limit))
		}
	}
	if err := b.ids(m); err != nil {
		return err
	}
	if len(m.Filter) > 0 && !m.NoNewPrivileges && !b.NoNewPrivileges && !b.filters {
		return beyond("thread %d: seccomp filters without no_new_privs; the spec grants no CAP_SYS_ADMIN", m.Tid)
	}
	if more := m.SecureBits &^ secbitKeepCaps; more != 0 && !b.secureBits {
		return beyond("thread %d: secure bits %#x; the spec grants no CAP_SETPCAP", m.Tid, more)
	}
	return nil
}

func (b *bounds) ids(m *state.ThreadCredential) error {
	for _, id := range list(m.Uid) {
		if id != b.UID && !b.anyUID {
			return beyond("thread %d: uid %d; allowed is %d, since the spec grants no CAP_SETUID", m.Tid, id, b.UID)
		}
	}
	if b.anyGID {
		return nil
	}
	for _, id := range list(m.Gid) {
		if id != b.GID {
			return beyond("thread %d: gid %d; allowed is %d, since the spec grants no CAP_SETGID", m.Tid, id, b.GID)
		}
	}
	// To leave a group needs CAP_SETGID as much as to join one: a file's mode
	// may give its group less than others.
	for _, g := range m.Group {
		if g != b.GID && !slices.Contains(b.Groups, g) {
			return beyond("thread %d: group %d; allowed are %v, since the spec grants no CAP_SETGID", m.Tid, g, b.Groups)
		}
	}
	for _, g := range b.Groups {
		if g != b.GID && !slices.Contains(m.Group, g) {
			return beyond("thread %d: without group %d, which the spec sets and grants no CAP_SETGID to leave", m.Tid, g)
		}
	}
	return nil
}

func list(i *state.Ids) []uint32 { return []uint32{i.Real, i.Effective, i.Saved, i.FileSystem} }

// limits checks resource limits against the spec's and those that the frame
// was given.
func (b *bounds) limits(want []*state.ResourceLimit, frame *procfs.Limits) error {
	for r, l := range want {
		if l.Hard > frame[r].Hard {
			return beyond("hard limit RLIMIT_%s of %s; the container was started with %s", limitNames[r], limitText(l.Hard), limitText(frame[r].Hard))
		}
		if spec, ok := b.Limits[r]; ok && l.Hard > spec.Max {
			return beyond("hard limit RLIMIT_%s of %s; allowed is %s", limitNames[r], limitText(l.Hard), limitText(spec.Max))
		}
	}
	return nil
}
