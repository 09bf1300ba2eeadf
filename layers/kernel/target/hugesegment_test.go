// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

func TestSegmentBytes(t *testing.T) {
	for _, c := range []struct{ size, page, want uint64 }{
		{1, 0, 4096}, {4096, 0, 4096}, {4097, 0, 8192}, {1, 2 << 20, 2 << 20}, {4<<20 + 1, 2 << 20, 6 << 20}, {MaxSize, 1 << 30, MaxSize},
	} {
		if got := SegmentBytes(c.size, c.page); got != c.want {
			t.Errorf("%d in pages of %d: %d, want %d", c.size, c.page, got, c.want)
		}
	}
}

func TestHugePagesExist(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []struct {
		text string
		some bool
		fail bool
	}{{"0\n", false, false}, {"3\n", true, false}, {"many\n", false, true}, {"", false, true}} {
		at := filepath.Join(dir, string(rune('a'+i)))
		pool(t, at, "hugepages-2048kB", "0", "0", "0", "0")
		if c.text != "" {
			if err := os.WriteFile(filepath.Join(at, "hugepages-2048kB", "nr_hugepages"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if some, err := hugePagesExist(at); some != c.some || (err != nil) != c.fail {
			t.Errorf("%q: %v, %v", c.text, some, err)
		}
	}
	if some, err := hugePagesExist(filepath.Join(dir, "none")); some || err != nil {
		t.Errorf("a kernel without: %v, %v", some, err)
	}
}

// TestHugeByGroup: membership that the specification gives, and its namespace has.
func TestHugeByGroup(t *testing.T) {
	all := []procfs.IDMap{{Inside: 0, Outside: 0, Count: 1<<32 - 1}}
	mapped := []procfs.IDMap{{Inside: 0, Outside: 200000, Count: 1000}}
	for name, c := range map[string]struct {
		a     Allowed
		gids  []procfs.IDMap
		host  uint32
		group int64 // -1: no right
	}{
		"root's":                          {Allowed{}, all, 0, 0},
		"a user's":                        {Allowed{UID: 1000, GID: 1000}, all, 0, -1},
		"of a user with another":          {Allowed{UID: 1000, GID: 1000, Groups: []uint32{3, 77}}, all, 77, 77},
		"of a user who can be in it":      {Allowed{UID: 1000, GID: 1000, Permitted: 1 << unix.CAP_SETGID}, all, 77, 77},
		"root, of another":                {Allowed{}, all, 77, -1},
		"root who can be in it":           {Allowed{Bounding: 1 << unix.CAP_SETGID}, all, 77, 77},
		"root who never can":              {Allowed{Bounding: 1 << unix.CAP_SETGID, NoNewPrivileges: true}, all, 77, -1},
		"the host's root, of a namespace": {Allowed{Permitted: 1 << unix.CAP_SETGID}, mapped, 0, -1},
		"a namespace's root":              {Allowed{}, mapped, 200000, 0},
		"of a namespace's user":           {Allowed{UID: 5, GID: 5}, mapped, 200005, 5},
		"behind a namespace's last":       {Allowed{Permitted: 1 << unix.CAP_SETGID}, mapped, 201000, -1},
		"of no mapping":                   {Allowed{}, nil, 0, -1},
	} {
		r, err := c.a.hugeByGroup(c.gids, c.host)
		switch {
		case c.group < 0:
			if !errors.Is(err, ErrNoHugeRight) {
				t.Errorf("%s: %v, %v", name, r, err)
			}
		case err != nil || !r.byGroup || int64(r.group) != c.group:
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// A segment of huge pages is known by being attached, and one of small pages is not. One
// that reserves no page needs none.
func TestAttachedSegmentsAreKnown(t *testing.T) {
	sizes, err := HugeSizes()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(sizes, 0) {
		const create, noReserve, huge = 0o1600, 0o10000, 0o4000
		flags := create
		if page > 0 {
			flags |= huge | noReserve | HugeFlag(page)
		}
		const size = 5<<20 - 3
		id, _, e := unix.Syscall(unix.SYS_SHMGET, 0, size, uintptr(flags))
		if e == unix.EPERM || e == unix.ENOMEM && page > 0 {
			t.Logf("pages of %s cannot be asked for here: %v", HugeName(page), e)
			continue
		}
		if e != 0 {
			t.Fatal(e)
		}
		defer unix.Syscall(unix.SYS_SHMCTL, id, 0, 0)
		a, err := AttachSegment(int32(id), size)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		err = unix.Stat(a.Path, &st)
		a.Detach()
		if err != nil || a.Page != page || page > 0 && uint64(st.Size) != SegmentBytes(size, page) {
			t.Errorf("pages of %d: %d, a file of %d bytes, %v", page, a.Page, st.Size, err)
		}
		if err := unix.Stat(a.Path, &st); err == nil {
			t.Errorf("pages of %d: it is attached still", page)
		}
	}
	if a, err := AttachSegment(1<<30, 4096); err == nil {
		t.Errorf("a segment that is not there is at %s", a.Path)
	}
}
