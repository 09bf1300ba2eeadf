// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"strings"
)

// MapKind says what is behind a mapping, as far as its name tells.
type MapKind uint8

// The kinds of mapping.
const (
	MapAnon       MapKind = iota // private anonymous, nameless
	MapFile                      // a file of a mounted file system; see Deleted
	MapHeap                      // [heap], private anonymous in the brk area
	MapStack                     // [stack], the initial thread's
	MapVDSO                      // [vdso]
	MapVVar                      // [vvar]
	MapVVarVClock                // [vvar_vclock]
	MapVSyscall                  // [vsyscall], not a real mapping: cannot be changed
	MapUprobes                   // [uprobes] and [uprobes-trampoline]
	MapAnonNamed                 // [anon:NAME], prctl(PR_SET_VMA_ANON_NAME)
	MapAnonShmem                 // [anon_shmem:NAME], the same on shared memory; map_files tells which
	MapSharedAnon                // /dev/zero (deleted): MAP_SHARED|MAP_ANONYMOUS
	MapSysV                      // /SYSVKEY (deleted): shmat(2); Inode is the shmid
	MapMemfd                     // /memfd:NAME (deleted)
	MapHugeAnon                  // /anon_hugepage (deleted): MAP_HUGETLB without a file
	MapAIO                       // /[aio] (deleted): the ring of io_setup(2)
	MapAnonInode                 // anon_inode:..., socket:[...]: a ring of io_uring, perf, packet sockets
	MapSpecial                   // another [name] of the kernel's: unknown, see Path
)

var mapKindNames = [...]string{
	MapAnon: "anon", MapFile: "file", MapHeap: "heap", MapStack: "stack", MapVDSO: "vdso",
	MapVVar: "vvar", MapVVarVClock: "vvar_vclock", MapVSyscall: "vsyscall", MapUprobes: "uprobes",
	MapAnonNamed: "anon-named", MapAnonShmem: "anon-shmem", MapSharedAnon: "shared-anon",
	MapSysV: "sysv", MapMemfd: "memfd", MapHugeAnon: "huge-anon", MapAIO: "aio",
	MapAnonInode: "anon-inode", MapSpecial: "special",
}

func (k MapKind) String() string {
	if int(k) < len(mapKindNames) {
		return mapKindNames[k]
	}
	return "invalid"
}

const (
	deletedSuffix  = " (deleted)"
	escapedNewline = `\012`

	anonPrefix      = "[anon:"
	anonShmemPrefix = "[anon_shmem:"
	memfdPrefix     = "/memfd:"
	sysvPrefix      = "/SYSV"
)

// Name is NAME of [anon:NAME], [anon_shmem:NAME] and /memfd:NAME, else "".
func (m *Mapping) Name() string {
	switch m.Kind {
	case MapAnonNamed:
		return strings.TrimSuffix(m.Path[len(anonPrefix):], "]")
	case MapAnonShmem:
		return strings.TrimSuffix(m.Path[len(anonShmemPrefix):], "]")
	case MapMemfd:
		return m.Path[len(memfdPrefix):]
	}
	return ""
}

// SysVKey is the IPC key of a MapSysV mapping; its shmid is Inode.
func (m *Mapping) SysVKey() (key uint32, ok bool) {
	if m.Kind != MapSysV {
		return 0, false
	}
	n, err := parseUint([]byte(m.Path[len(sysvPrefix):]), 16, 32)
	return uint32(n), err == nil
}

// pathCache remembers the last name: a library's mappings follow each other,
// and big address spaces repeat one name thousands of times.
type pathCache struct {
	raw     []byte
	path    string
	deleted bool
}

// setPath fills Path, Deleted and Kind from the rest of the line.
func (p *pathCache) setPath(m *Mapping, raw []byte) {
	if len(raw) == 0 {
		return // MapAnon
	}
	if !bytes.Equal(raw, p.raw) {
		p.raw = append(p.raw[:0], raw...)
		name, deleted := bytes.CutSuffix(raw, []byte(deletedSuffix))
		if raw[0] == '[' || len(name) == 0 {
			name, deleted = raw, false
		}
		p.path, p.deleted = unescapeNewlines(name), deleted
	}
	m.Path, m.Deleted = p.path, p.deleted
	m.Kind = classify(m)
}

// unescapeNewlines undoes show_map_vma's seq_path(m, path, "\n").
func unescapeNewlines(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	return strings.ReplaceAll(string(b), escapedNewline, "\n")
}

// classify derives the kind from the name. Names in brackets cannot be forged
// by an application: files begin with a slash and anon names cannot contain a
// bracket (mm/madvise.c). Names of kernel-internal files can: a file "memfd:x"
// in the root directory, once unlinked, prints like a memfd. Those files live
// on devices with major 0, which is checked, but so does overlayfs. A caller
// that must be certain compares Dev with that of a memfd of its own.
func classify(m *Mapping) MapKind {
	switch m.Path[0] {
	case '[':
		return classifySpecial(m)
	case '/':
		if m.Deleted && m.Dev.Major == 0 {
			return classifyInternal(m.Path)
		}
		return MapFile
	}
	return MapAnonInode
}

func classifySpecial(m *Mapping) MapKind {
	switch m.Path {
	case "[heap]":
		return MapHeap
	case "[stack]":
		return MapStack
	case "[vdso]":
		return MapVDSO
	case "[vvar]":
		return MapVVar
	case "[vvar_vclock]":
		return MapVVarVClock
	case "[vsyscall]":
		return MapVSyscall
	case "[uprobes]", "[uprobes-trampoline]":
		return MapUprobes
	}
	switch {
	case strings.HasPrefix(m.Path, anonPrefix):
		return MapAnonNamed
	case strings.HasPrefix(m.Path, anonShmemPrefix):
		return MapAnonShmem
	}
	return MapSpecial
}

// classifyInternal tells apart the nameless files of shmem and hugetlbfs.
func classifyInternal(path string) MapKind {
	switch path {
	case "/dev/zero":
		return MapSharedAnon
	case "/anon_hugepage":
		return MapHugeAnon
	case "/[aio]":
		return MapAIO
	}
	if strings.HasPrefix(path, memfdPrefix) {
		return MapMemfd
	}
	if key, ok := strings.CutPrefix(path, sysvPrefix); ok {
		if _, err := parseUint([]byte(key), 16, 32); err == nil {
			return MapSysV
		}
	}
	return MapFile
}
