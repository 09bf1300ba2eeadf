// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/state"
)

// TestAlike: of a thread that begins with all that it is to have only the sets are
// changed, by one call; where anything else differs every call is made, whichever
// thread was asked about before.
func TestAlike(t *testing.T) {
	const chown, kill, setgid = 1 << unix.CAP_CHOWN, 1 << unix.CAP_KILL, 1 << unix.CAP_SETGID
	now := &beginning{
		Status: &procfs.Status{
			UID: procfs.IDs{Real: 100005, Effective: 100006, Saved: 100007, FS: 100008}, GID: procfs.IDs{Real: 200001, Effective: 200001, Saved: 200001, FS: 200001},
			Groups: []uint32{200009, 200003},
			Cap:    procfs.CapSets{Bounding: chown | kill, Permitted: chown | setgid, Inheritable: kill},
		},
		uids: []procfs.IDMap{{Inside: 0, Outside: 100000, Count: 1000}}, gids: []procfs.IDMap{{Inside: 0, Outside: 200000, Count: 1000}},
		secureBits: secbitKeepCaps,
	}
	same := &state.ThreadCredential{
		Uid: &state.Ids{Real: 5, Effective: 6, Saved: 7, FileSystem: 8}, Gid: &state.Ids{Real: 1, Effective: 1, Saved: 1, FileSystem: 1},
		Group: []uint32{3, 9}, Bounding: chown | kill, Permitted: chown, Effective: chown, Inheritable: chown | kill, SecureBits: secbitKeepCaps,
	}
	check := func(name string, m *state.ThreadCredential, alike bool) {
		t.Helper()
		calls := changes(m, now, 4096, true)
		if got := len(calls) == 2 && calls[0].Args[1] == 4096+setLast && calls[1].Args[0] == unix.PR_SET_NO_NEW_PRIVS; got != alike {
			t.Errorf("%s: %v", name, calls)
		}
	}
	check("same", same, true)
	for name, change := range map[string]func(*state.ThreadCredential){
		"uid": func(m *state.ThreadCredential) { m.Uid.Saved = 6 }, "gid": func(m *state.ThreadCredential) { m.Gid.FileSystem = 2 },
		"groups": func(m *state.ThreadCredential) { m.Group = m.Group[:1] }, "secure bits": func(m *state.ThreadCredential) { m.SecureBits = 0 },
		"bounding set": func(m *state.ThreadCredential) { m.Bounding = chown }, "ambient set": func(m *state.ThreadCredential) { m.Ambient = chown },
		"more to inherit": func(m *state.ThreadCredential) { m.Inheritable |= setgid },
	} {
		m := proto.CloneOf(same)
		change(m)
		check(name, m, false)
		check("again, behind "+name, same, true)
	}
	less := proto.CloneOf(same)
	less.Permitted, less.Effective, less.Inheritable = 0, 0, 0
	check("smaller sets", less, true)
	now.secureBits, now.last = -1, nil
	check("secure bits that are not known", same, false)
}
