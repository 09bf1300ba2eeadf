// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"errors"
	"fmt"
	"slices"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// ErrNotAsAsked marks a thread whose credentials are not what was set.
var ErrNotAsAsked = errors.New("the restored credentials differ from the image's")

// verify compares what the kernel shows with what the image asked for and with
// what is allowed. Nothing of the frame's extra rights may be left.
func verify(env target.Env, t *target.Task, k *saved) error {
	uids, err := t.Proc.UIDMap()
	if err != nil {
		return err
	}
	gids, err := t.Proc.GIDMap()
	if err != nil {
		return err
	}
	b := newBounds(t.Allowed())
	err = env.Each(len(k.threads), func(i int) error {
		m := k.threads[i]
		th := t.Threads[int(m.Tid)]
		if th == nil {
			return fmt.Errorf("%w: thread %d does not exist", errImage, m.Tid)
		}
		st, err := t.Proc.Thread(th.Tid).Status()
		if err != nil {
			return err
		}
		if err := compare(m, &st, uids, gids, t.Allowed().NoNewPrivileges); err != nil {
			return err
		}
		return b.thread(m) // once more, against what is true now
	})
	if err != nil {
		return err
	}
	return verifyLimits(t, k.process.Limit)
}

// compare looks at one thread. Ids in st are the engine's, those of the image
// the container's: the maps lead from one to the other.
func compare(m *state.ThreadCredential, st *procfs.Status, uids, gids []procfs.IDMap, nnp bool) error {
	differs := func(what string, got, want any) error {
		return fmt.Errorf("%w: thread %d: %s is %v instead of %v", ErrNotAsAsked, m.Tid, what, got, want)
	}
	c := st.Cap
	for _, s := range []struct {
		name      string
		got, want uint64
	}{
		{"bounding", c.Bounding, m.Bounding}, {"permitted", c.Permitted, m.Permitted}, {"effective", c.Effective, m.Effective},
		{"inheritable", c.Inheritable, m.Inheritable}, {"ambient", c.Ambient, m.Ambient},
	} {
		if s.got != s.want {
			return differs("the "+s.name+" set", capabilities(s.got), capabilities(s.want))
		}
	}
	for _, s := range []struct {
		name string
		got  procfs.IDs
		want *state.Ids
		maps []procfs.IDMap
	}{{"uid", st.UID, m.Uid, uids}, {"gid", st.GID, m.Gid, gids}} {
		got, want := []uint32{s.got.Real, s.got.Effective, s.got.Saved, s.got.FS}, outer(s.maps, list(s.want))
		if !slices.Equal(got, want) {
			return differs(s.name, got, want)
		}
	}
	got, want := slices.Sorted(slices.Values(st.Groups)), slices.Sorted(slices.Values(outer(gids, m.Group)))
	if !slices.Equal(got, want) {
		return differs("groups", got, want)
	}
	if (m.NoNewPrivileges || nnp) && !st.NoNewPrivs {
		return differs("no_new_privs", false, true)
	}
	if !sameSeccomp(int(m.SeccompMode), int(m.SeccompFilters), st) {
		return differs("seccomp", fmt.Sprintf("mode %d with %d filters", st.Seccomp, st.SeccompFilters), fmt.Sprintf("mode %d with %d", m.SeccompMode, m.SeccompFilters))
	}
	return nil
}

// outer translates ids of the container's user namespace. One that is not
// mapped stays as it is; nobody can have it.
func outer(maps []procfs.IDMap, ids []uint32) []uint32 {
	out := slices.Clone(ids)
	for i, id := range ids {
		for _, m := range maps {
			if id >= m.Inside && id-m.Inside < m.Count {
				out[i] = m.Outside + (id - m.Inside)
				break
			}
		}
	}
	return out
}

// sameSecureBits compares what a thread has said of itself after the last of
// its changes: secure bits are not in /proc.
func sameSecureBits(m *state.ThreadCredential, got int64) error {
	if got != int64(m.SecureBits) {
		return fmt.Errorf("%w: thread %d: secure bits are %#x instead of %#x", ErrNotAsAsked, m.Tid, got, m.SecureBits)
	}
	return nil
}

func verifyLimits(t *target.Task, want []*state.ResourceLimit) error {
	got, err := t.Proc.Limits()
	if err != nil {
		return err
	}
	for r, l := range want {
		if got[r].Soft != l.Soft || got[r].Hard != l.Hard {
			return fmt.Errorf("%w: RLIMIT_%s is %s, hard %s, instead of %s, hard %s", ErrNotAsAsked, limitNames[r],
				limitText(got[r].Soft), limitText(got[r].Hard), limitText(l.Soft), limitText(l.Hard))
		}
	}
	return nil
}
