// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// fuzz seeds with golden files and demands of every parser: no panic, and
// every error is a ParseError of bounded size.
func fuzz[T any](f *testing.F, parse func([]byte) (T, error), check func(*testing.T, []byte, T), seeds ...string) {
	f.Helper()
	for _, pattern := range seeds {
		names, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(names) == 0 {
			f.Fatalf("no seed %s: %v", pattern, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		v, err := parse(data)
		if !bytes.Equal(before, data) {
			t.Fatal("the parser changed its input")
		}
		var pe *ParseError
		switch {
		case err == nil:
			if check != nil {
				check(t, data, v)
			}
		case !errors.As(err, &pe):
			t.Fatalf("error %v is no ParseError", err)
		case len(pe.Text) > maxErrorText:
			t.Fatalf("error quotes %d bytes", len(pe.Text))
		}
	})
}

func sorted(t *testing.T, m, before *Mapping) {
	if m.Start >= m.End || before != nil && m.Start < before.End {
		t.Fatalf("%v follows %v", m, before)
	}
	if m.Path == "" && (m.Kind != MapAnon || m.Deleted) {
		t.Fatalf("%v has kind %v, deleted %v", m, m.Kind, m.Deleted)
	}
}

// FuzzMaps: sorted, disjoint, and what String prints parses to the same.
func FuzzMaps(f *testing.F) {
	fuzz(f, ParseMaps, func(t *testing.T, _ []byte, maps []Mapping) {
		var text strings.Builder
		var before *Mapping
		for i := range maps {
			sorted(t, &maps[i], before)
			before = &maps[i]
			text.WriteString(maps[i].String() + "\n")
		}
		again, err := ParseMaps([]byte(text.String()))
		if err != nil || len(again) != len(maps) || len(maps) > 0 && !reflect.DeepEqual(again, maps) {
			t.Fatalf("%q came back as\n%+v, was\n%+v: %v", text.String(), again, maps, err)
		}
	}, "maps")
}

func FuzzSmaps(f *testing.F) {
	fuzz(f, ParseSmaps, func(t *testing.T, data []byte, maps []SmapsMapping) {
		var before *Mapping
		for i := range maps {
			sorted(t, &maps[i].Mapping, before)
			before = &maps[i].Mapping
			if flags, unknown := parseVMFlags([]byte(maps[i].Flags.String())); flags != maps[i].Flags || unknown != nil {
				t.Fatalf("flags %v came back as %v", maps[i].Flags, flags)
			}
		}
	}, "smaps")
}

func FuzzStat(f *testing.F) {
	fuzz(f, ParseStat, func(t *testing.T, data []byte, s Stat) {
		if !s.State.valid() || len(s.Comm) > len(data) {
			t.Fatalf("%+v", s)
		}
	}, "stat")
}

func FuzzStatus(f *testing.F) {
	fuzz(f, ParseStatus, func(t *testing.T, data []byte, s Status) {
		if !s.State.valid() || s.Umask > 0o177777 || len(s.Groups) > len(data)/2 {
			t.Fatalf("%+v", s)
		}
	}, "status")
}

func FuzzLimits(f *testing.F) { fuzz(f, ParseLimits, nil, "limits") }

func FuzzTimers(f *testing.F) {
	fuzz(f, ParseTimers, func(t *testing.T, data []byte, timers []Timer) {
		if bytes.Count(data, []byte("\n")) != 4*len(timers) {
			t.Fatalf("%d timers", len(timers))
		}
	}, "timers")
}

func FuzzFDInfo(f *testing.F) {
	fuzz(f, ParseFDInfo, func(t *testing.T, _ []byte, d FDInfo) {
		if len(d.Extra) > maxExtra {
			t.Fatalf("kept %d lines", len(d.Extra))
		}
	}, "fdinfo/*")
}

func FuzzLocks(f *testing.F) {
	fuzz(f, ParseLocks, func(t *testing.T, _ []byte, locks []Lock) {
		for _, l := range locks {
			if l.Class == 0 || l.Class > LockUnknown || l.Depth < 0 {
				t.Fatalf("%+v", l)
			}
		}
	}, "locks")
}

func FuzzMountinfo(f *testing.F) {
	fuzz(f, ParseMountinfo, func(t *testing.T, _ []byte, mounts []Mount) {
		for _, m := range mounts {
			if m.Target == "" || m.FSType == "" || m.Shared < 0 {
				t.Fatalf("%+v", m)
			}
		}
	}, "mountinfo")
}

// FuzzFDLink: a path stays a path, whatever it contains, and nothing of it is
// lost.
func FuzzFDLink(f *testing.F) {
	parse := func(b []byte) (FDLink, error) { return ParseFDLink(string(b)) }
	for _, s := range []string{"/tmp/x (deleted)", "socket:[1]", "anon_inode:[eventfd]", "/memfd:x (deleted)"} {
		f.Add([]byte(s))
	}
	fuzz(f, parse, func(t *testing.T, data []byte, l FDLink) {
		isPath := l.Kind == FDPath || l.Kind == FDDevice || l.Kind == FDMemfd
		if isPath != (data[0] == '/') || l.Kind == 0 {
			t.Fatalf("%q is %+v", data, l)
		}
		if back := l.Path + deletedSuffix; l.Kind == FDPath && l.Deleted && back != string(data) {
			t.Fatalf("%q is %+v", data, l)
		}
	}, "cgroup")
}

func FuzzTables(f *testing.F) {
	parse := func(b []byte) (int, error) {
		inet, err := ParseInet(b)
		unix, err2 := ParseUnix(b)
		netlink, err3 := ParseNetlink(b)
		packet, err4 := ParsePacket(b)
		shm, err5 := ParseSysVShm(b)
		msg, err6 := ParseSysVMsg(b)
		sem, err7 := ParseSysVSem(b)
		rows := len(inet) + len(unix) + len(netlink) + len(packet) + len(shm) + len(msg) + len(sem)
		return rows, errors.Join(err, err2, err3, err4, err5, err6, err7)
	}
	fuzz(f, parse, nil, "tcp*", "unix", "netlink", "packet", "shm", "msg", "sem")
}

func FuzzSmallFiles(f *testing.F) {
	parse := func(b []byte) (int, error) {
		_, err := ParseCgroup(b)
		_, err2 := ParseIDMap(b)
		_, err3 := ParseTimensOffsets(b)
		_, err4 := ParseCPUInfo(b)
		_, err5 := ParseDecimal(b)
		_, err6 := ParseOOMScoreAdj(b)
		_, err7 := ParseChildren(b)
		_, err8 := ParseAuxv(b)
		_, err9 := ParseCmdline(b)
		return 0, errors.Join(err, err2, err3, err4, err5, err6, err7, err8, err9)
	}
	fuzz(f, parse, nil, "cgroup", "uid_map", "timens_offsets", "cpuinfo")
}

// FuzzStreamLines: streaming and parsing at once see the same lines.
func FuzzStreamLines(f *testing.F) {
	f.Add([]byte("a\nbb\n\nc"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		var whole, pieces []string
		errWhole := eachLine("x", data, func(b []byte) error { whole = append(whole, string(b)); return nil })
		_, errPieces := streamLines("x", iotest.HalfReader(bytes.NewReader(data)), make([]byte, int(size)+1),
			func(b []byte) error { pieces = append(pieces, string(b)); return nil })
		if !reflect.DeepEqual(whole, pieces) || !reflect.DeepEqual(errWhole, errPieces) {
			t.Fatalf("%q, %v\n%q, %v", whole, errWhole, pieces, errPieces)
		}
	})
}
