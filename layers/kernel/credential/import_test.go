// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func ordinary() *state.ThreadCredential {
	return &state.ThreadCredential{Tid: 1, Uid: &state.Ids{}, Gid: &state.Ids{}, Permitted: 6, Inheritable: 2, Bounding: 7}
}

func pack(t testing.TB, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileThreads: what no task can have is refused at once.
func TestHostileThreads(t *testing.T) {
	for what, change := range map[string]func(*state.ThreadCredential){
		"no such id":                       func(m *state.ThreadCredential) { m.Tid = 0 },
		"thread 4194305":                   func(m *state.ThreadCredential) { m.Tid = 4<<20 + 1 },
		"ids are missing":                  func(m *state.ThreadCredential) { m.Gid = nil },
		"65537 groups":                     func(m *state.ThreadCredential) { m.Group = make([]uint32, 65537) },
		"not permitted: CAP_CHOWN":         func(m *state.ThreadCredential) { m.Effective = 1 },
		"and inheritable: CAP_DAC_READ":    func(m *state.ThreadCredential) { m.Ambient = 4 },
		"secure bits 0x100":                func(m *state.ThreadCredential) { m.SecureBits = 0x100 },
		"-1 as an id":                      func(m *state.ThreadCredential) { m.Uid.Saved = ^uint32(0) },
		"thread 1: -1 as an id":            func(m *state.ThreadCredential) { m.Group = []uint32{1, ^uint32(0)} },
		"not permitted: capability 63":     func(m *state.ThreadCredential) { m.Effective = 1 << 63 },
		"seccomp mode 3":                   func(m *state.ThreadCredential) { m.SeccompMode = 3 },
		"filters in seccomp mode 1":        func(m *state.ThreadCredential) { m.SeccompMode, m.Filter = 1, []uint32{0} },
		"1 seccomp filters, 2 of them":     func(m *state.ThreadCredential) { m.SeccompMode, m.SeccompFilters, m.Filter = 2, 1, []uint32{0, 0} },
		"not permitted: CAP_CHECKPOINT_RE": func(m *state.ThreadCredential) { m.Effective = 1 << 40 },
	} {
		bad := ordinary()
		change(bad)
		s := New(target.Env{})
		err := s.receive(&record.Record{
			Header:  record.Header{Subsystem: Name, Process: 1, Kind: KindThreads},
			Payload: pack(t, &state.ThreadCredentials{Thread: []*state.ThreadCredential{bad}}),
		})
		if !errors.Is(err, errImage) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestHostileFilters: programs that the kernel would not take, or that hang on a
// listener.
func TestHostileFilters(t *testing.T) {
	notify := []byte{unix.BPF_RET, 0, 0, 0, 0, 0, 0xc0, 0x7f}
	loaded := append([]byte{unix.BPF_LD | unix.BPF_IMM, 0, 0, 0, 0, 0, 0xc0, 0x7f}, unix.BPF_RET|unix.BPF_A, 0, 0, 0, 0, 0, 0, 0)
	allow := []byte{unix.BPF_RET, 0, 0, 0, 0, 0, 0xff, 0x7f}
	for _, code := range [][]byte{nil, allow[:7], make([]byte, 8*4097), notify, append(slices.Clone(allow), notify...), loaded} {
		if err := (&saved{}).addFilter(0, pack(t, &state.SeccompFilter{Code: code})); !errors.Is(err, errImage) {
			t.Errorf("%x: %v", code, err)
		}
	}
	k := &saved{}
	if err := k.addFilter(0, pack(t, &state.SeccompFilter{Code: allow})); err != nil {
		t.Error(err)
	}
	if err := k.addFilter(0, pack(t, &state.SeccompFilter{Code: allow})); !errors.Is(err, errImage) {
		t.Error("the same number twice:", err)
	}
	big := make([]byte, 8*4096)
	for n := range uint64(20) {
		if err := k.addFilter(1+n, pack(t, &state.SeccompFilter{Code: big})); err != nil {
			t.Fatal(err)
		}
	}
	for _, chain := range [][]uint32{{21}, {1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		if err := k.chain(&state.ThreadCredential{Filter: chain}); !errors.Is(err, errImage) {
			t.Errorf("%v: %v", chain, err)
		}
	}
	k.filterBytes = maxFilterBytes
	if err := k.addFilter(21, pack(t, &state.SeccompFilter{Code: allow})); !errors.Is(err, errImage) {
		t.Error("too much:", err)
	}
}

func TestHostileLimits(t *testing.T) {
	limits := func(n int) *state.ProcessLimits {
		m := &state.ProcessLimits{}
		for range n {
			m.Limit = append(m.Limit, &state.ResourceLimit{Soft: 1, Hard: 1})
		}
		return m
	}
	soft, dump := limits(16), limits(16)
	soft.Limit[7].Soft = 2
	dump.Dumpable = 3
	for _, m := range []*state.ProcessLimits{limits(0), limits(15), limits(17), soft, dump} {
		if err := (&saved{}).setProcess(pack(t, m)); !errors.Is(err, errImage) {
			t.Errorf("%v: %v", m, err)
		}
	}
	if err := (&saved{}).setProcess(pack(t, limits(16))); err != nil {
		t.Error(err)
	}
}

// TestBounds: how far each kind of spec lets an image go.
func TestBounds(t *testing.T) {
	const setuid, setgid, setpcap = 1 << unix.CAP_SETUID, 1 << unix.CAP_SETGID, 1 << unix.CAP_SETPCAP
	thread := func(change func(*state.ThreadCredential)) *state.ThreadCredential {
		m := &state.ThreadCredential{Tid: 1, Uid: &state.Ids{}, Gid: &state.Ids{}}
		change(m)
		return m
	}
	user := func(m *state.ThreadCredential) { m.Uid.Effective = 5 }
	group := func(m *state.ThreadCredential) { m.Group = []uint32{5} }
	permitted := func(m *state.ThreadCredential) { m.Permitted = setuid }
	usersPermitted := func(m *state.ThreadCredential) {
		m.Uid, m.Permitted = &state.Ids{Real: 5, Effective: 5, Saved: 5, FileSystem: 5}, setuid
	}
	inheritable := func(m *state.ThreadCredential) { m.Inheritable = setgid }
	bits := func(m *state.ThreadCredential) { m.SecureBits = 1 }
	keep := func(m *state.ThreadCredential) { m.SecureBits = secbitKeepCaps }
	filter := func(m *state.ThreadCredential) {
		m.Filter = []uint32{0}
		m.Uid = &state.Ids{Real: 5, Effective: 5, Saved: 5, FileSystem: 5}
	}
	left := func(m *state.ThreadCredential) {}
	for _, c := range []struct {
		name   string
		spec   target.Allowed
		change func(*state.ThreadCredential)
		ok     bool
	}{
		{"uid without the right", target.Allowed{}, user, false},
		{"uid, permitted", target.Allowed{Permitted: setuid, Bounding: setuid}, user, true},
		{"uid, root with the bounding set", target.Allowed{Bounding: setuid}, user, true},
		{"uid, root that cannot gain", target.Allowed{Bounding: setuid, NoNewPrivileges: true}, user, false},
		{"uid, a user with the bounding set", target.Allowed{UID: 0, GID: 0, Bounding: setgid}, user, false},
		{"group without the right", target.Allowed{}, group, false},
		{"group of the spec", target.Allowed{Groups: []uint32{5}}, group, true},
		{"group left without the right", target.Allowed{Groups: []uint32{5}}, left, false},
		{"group left with it", target.Allowed{Groups: []uint32{5}, Effective: setgid}, left, true},
		{"permitted from bounding", target.Allowed{Bounding: setuid}, permitted, true},
		{"permitted from a user's bounding set", target.Allowed{UID: 5, Bounding: setuid}, usersPermitted, false},
		{"permitted from a user's permitted set", target.Allowed{UID: 5, Bounding: setuid, Permitted: setuid}, usersPermitted, true},
		{"permitted that cannot be gained", target.Allowed{Bounding: setuid, NoNewPrivileges: true}, permitted, false},
		{"permitted beyond the bounding set", target.Allowed{Permitted: setuid, NoNewPrivileges: true}, permitted, false},
		{"inheritable with CAP_SETPCAP", target.Allowed{Permitted: setpcap, Bounding: setgid | setpcap, NoNewPrivileges: true}, inheritable, true},
		{"inheritable without it", target.Allowed{Bounding: setgid, NoNewPrivileges: true}, inheritable, false},
		{"secure bits", target.Allowed{UID: 0}, bits, false},
		{"secure bits with CAP_SETPCAP", target.Allowed{Effective: setpcap}, bits, true},
		{"filters that deceive programs of others", target.Allowed{UID: 5}, filter, false},
		{"filters with no_new_privs", target.Allowed{UID: 5, NoNewPrivileges: true}, filter, true},
		{"filters with CAP_SYS_ADMIN", target.Allowed{UID: 5, Effective: 1 << unix.CAP_SYS_ADMIN}, filter, true},
		{"keep_caps is everybody's", target.Allowed{}, keep, true},
	} {
		b := newBounds(c.spec)
		err := b.thread(thread(c.change))
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrBeyondSpec) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestCompare: whatever the kernel shows that differs from the image is found.
func TestCompare(t *testing.T) {
	maps := []procfs.IDMap{{Inside: 0, Outside: 100000, Count: 10}}
	m := &state.ThreadCredential{Uid: &state.Ids{Real: 1}, Gid: &state.Ids{Saved: 2}, Group: []uint32{7, 3}, Permitted: 5, NoNewPrivileges: true}
	good := procfs.Status{
		UID: procfs.IDs{Real: 100001, Effective: 100000, Saved: 100000, FS: 100000}, GID: procfs.IDs{Real: 100000, Effective: 100000, Saved: 100002, FS: 100000},
		Groups: []uint32{100003, 100007}, Cap: procfs.CapSets{Permitted: 5}, NoNewPrivs: true,
	}
	if err := compare(m, &good, maps, maps, false); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*procfs.Status){
		"uid":               func(s *procfs.Status) { s.UID.FS = 0 },
		"gid":               func(s *procfs.Status) { s.GID.Saved = 2 },
		"groups":            func(s *procfs.Status) { s.Groups = s.Groups[:1] },
		"the permitted set": func(s *procfs.Status) { s.Cap.Permitted |= 1 << 21 },
		"the ambient set":   func(s *procfs.Status) { s.Cap.Ambient = 1 },
		"no_new_privs":      func(s *procfs.Status) { s.NoNewPrivs = false },
		"seccomp is mode 2": func(s *procfs.Status) { s.Seccomp = procfs.SeccompFilter },
	} {
		st := good
		change(&st)
		if err := compare(m, &st, maps, maps, false); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSeccompRefusal(t *testing.T) {
	for _, c := range []struct {
		mode, filters, spec int
		refused             bool
	}{{0, 0, 0, false}, {2, 1, 1, false}, {2, 2, 1, false}, {2, 1, 0, false}, {0, 0, 1, true}, {1, 0, 0, false}, {2, -1, 1, false}, {0, -1, 1, true}} {
		what, _ := seccompRefusal(&procfs.Status{Seccomp: c.mode, SeccompFilters: c.filters}, c.spec)
		if (what != "") != c.refused {
			t.Errorf("%+v: %q", c, what)
		}
	}
}

// FuzzReceive: hostile records give an error or credentials whose calls can be
// written down, and none that is beyond a narrow spec passes.
func FuzzReceive(f *testing.F) {
	f.Add(uint32(KindThreads), pack(f, &state.ThreadCredentials{Thread: []*state.ThreadCredential{ordinary()}}))
	f.Add(uint32(KindProcess), pack(f, &state.ProcessLimits{Limit: make([]*state.ResourceLimit, 0), Dumpable: 1}))
	f.Add(uint32(KindFilter), pack(f, &state.SeccompFilter{Code: []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}, Log: true}))
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		s := New(target.Env{})
		if s.receive(&record.Record{Header: record.Header{Subsystem: Name, Process: 1, Kind: kind}, Payload: payload}) != nil {
			return
		}
		k := s.kept[1]
		b := newBounds(target.Allowed{UID: 5, GID: 5, Bounding: 2})
		for _, m := range k.threads {
			changes(m, &beginning{Status: &procfs.Status{}, secureBits: int64(m.SecureBits)}, 4096, true)
			if n := len(appendBlock(nil, m, 0)); n < setGroups+4*len(m.Group) {
				t.Fatalf("%d bytes for %d groups", n, len(m.Group))
			}
			if b.thread(m) == nil && (m.Permitted|m.Effective|m.Ambient|m.Bounding|m.Inheritable)&^2 != 0 {
				t.Fatalf("%v passes", m)
			}
		}
		if k.process != nil {
			_ = b.limits(k.process.Limit, &procfs.Limits{})
		}
	})
}
