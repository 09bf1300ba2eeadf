// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"strings"
	"testing"
)

func TestParseMaps(t *testing.T) {
	text := golden(t, "maps")
	got := must(ParseMaps(text))(t)
	kinds := []MapKind{MapFile, MapFile, MapHeap, MapAnon, MapMemfd, MapAnonNamed, MapAnonShmem, MapFile,
		MapAIO, MapSharedAnon, MapFile, MapHugeAnon, MapAnonInode, MapSysV, MapUprobes, MapVVar,
		MapVVarVClock, MapVDSO, MapSpecial, MapStack, MapVSyscall}
	if len(got) != len(kinds) {
		t.Fatalf("%d mappings, want %d", len(got), len(kinds))
	}
	lines := strings.Split(string(text), "\n")
	for i := range got {
		if got[i].Kind != kinds[i] {
			t.Errorf("%s: kind %v, want %v", lines[i], got[i].Kind, kinds[i])
		}
		if s := got[i].String(); s != lines[i] {
			t.Errorf("String() is\n%q, want\n%q", s, lines[i])
		}
	}
	equal(t, got[1], Mapping{Start: 0x55b87e77e000, End: 0x55b87e77f000, Offset: 0x1000, Inode: 18500,
		Path: "/usr/bin/app", Dev: Dev{0xfe, 0}, Prot: ProtRead | ProtExec, Kind: MapFile})
	equal(t, got[7], Mapping{Start: 0x7fe22df8b000, End: 0x7fe22df8c000, Inode: 9977883, Path: "/tmp/a\nb",
		Dev: Dev{0xfe, 0}, Prot: ProtRead, Shared: true, Deleted: true, Kind: MapFile})
}

func TestMappingNames(t *testing.T) {
	got := must(ParseMaps(golden(t, "maps")))(t)
	equal(t, []string{got[4].Name(), got[5].Name(), got[6].Name(), got[0].Name()},
		[]string{"a b", "hi there", "pool", ""})
	if key, ok := got[13].SysVKey(); !ok || key != 0x1234beef || got[13].Inode != 1 {
		t.Errorf("SysV key %#x %v, shmid %d", key, ok, got[13].Inode)
	}
	if _, ok := got[0].SysVKey(); ok {
		t.Error("a file has a SysV key")
	}
}

func TestParseMapsRefuses(t *testing.T) {
	const good = "1000-2000 rw-p 00000000 00:00 0 \n"
	for text, want := range map[string]string{
		"1000-2000 rw-p 00000000 00:00 0 ":          "cut off",
		"1000 rw-p 00000000 00:00 0 \n":             "start is not a number",
		"1000-1000 rw-p 00000000 00:00 0 \n":        "empty or reversed",
		"2000-1000 rw-p 00000000 00:00 0 \n":        "empty or reversed",
		"1000-2000 rw-x 00000000 00:00 0 \n":        "unknown letter",
		"1000-2000 rwxpp 00000000 00:00 0 \n":       "four letters",
		"1000-2000 xr-p 00000000 00:00 0 \n":        "unknown letter",
		"1000-2000 rw-p 00000000 0000 0 \n":         "device",
		"1000-2000 rw-p 00000000 00:00 x \n":        "inode is not a number",
		"1000-2000 rw-p 00000000 00:00\n":           "device",
		"1000-20000000000000000 rw-p 0 00:00 0 \n":  "end is out of range",
		good + "1fff-3000 rw-p 00000000 00:00 0 \n": "before the end",
		good + good: "before the end",
		good + "\n": "start",
		good + "3000-4000 rw-p 00000000 00:00 0 /x": "maps:2:",
	} {
		refuses(t, ParseMaps, text, want)
	}
}

func TestUnlinkedNameOnly(t *testing.T) {
	got := must(ParseMaps([]byte("1000-2000 r--p 00000000 fe:00 5                  (deleted)\n")))(t)
	if got[0].Deleted && got[0].Path == "" {
		t.Error("empty path is marked deleted")
	}
}

func TestParseSmaps(t *testing.T) {
	got := must(ParseSmaps(golden(t, "smaps")))(t)
	const k = 1024
	equal(t, got[0], SmapsMapping{
		Mapping:      Mapping{Start: 0x7f1000000000, End: 0x7f1000200000, Prot: ProtRead | ProtWrite},
		Flags:        VMRead | VMWrite | VMMayRead | VMMayWrite | VMMayExec | VMLocked | VMAccount | VMSoftDirty | VMHugePage | VMGuard,
		UnknownFlags: []string{"zz"},
		Size:         2048 * k, KernelPageSize: 4 * k, MMUPageSize: 4 * k, Rss: 2048 * k, Pss: 1024 * k,
		PssDirty: 1024 * k, SharedClean: k, SharedDirty: 2 * k, PrivateClean: 3 * k, PrivateDirty: 5 * k,
		Referenced: 6 * k, Anonymous: 7 * k, KSM: 8 * k, LazyFree: 9 * k, AnonHugePages: 2048 * k,
		ShmemPmdMapped: 10 * k, FilePmdMapped: 11 * k, SharedHugetlb: 12 * k, PrivateHugetlb: 13 * k,
		Swap: 14 * k, SwapPss: 15 * k, Locked: 16 * k, THPEligible: true, ProtectionKey: 3,
		Extra: map[string]uint64{"NewCounter": 17 * k},
	})
	if got[1].Flags != VMExec || got[1].Kind != MapVSyscall {
		t.Errorf("second mapping: flags %v, kind %v", got[1].Flags, got[1].Kind)
	}
	if s := got[0].Flags.String(); s != "rd wr mr mw me lo ac sd hg gu" {
		t.Errorf("flags print as %q", s)
	}
}

func TestVMFlagCodes(t *testing.T) {
	if len(vmBits) != len(vmCodes)/2 {
		t.Fatal("a code occurs twice")
	}
	// Pins code to constant at places across the list: a line inserted in
	// one but not in the other shifts what follows.
	for code, want := range map[string]VMFlags{"rd": VMRead, "ms": VMMayShare, "gd": VMGrowsDown, "io": VMIO,
		"dc": VMDontFork, "lf": VMLockOnFault, "ht": VMHugeTLB, "wf": VMWipeOnFork, "dd": VMDontDump,
		"mm": VMMixed, "nh": VMNoHugePage, "mg": VMMergeable, "um": VMUffdMissing, "uw": VMUffdWP,
		"ui": VMUffdMinor, "ss": VMShadowStack, "dp": VMDroppable, "sl": VMSealed, "gu": VMGuard} {
		if got, unknown := parseVMFlags([]byte(" " + code + " ")); got != want || unknown != nil {
			t.Errorf("%s is %b, want %b", code, got, want)
		}
	}
}

func TestParseSmapsRefuses(t *testing.T) {
	const head = "1000-2000 rw-p 00000000 00:00 0 \n"
	for text, want := range map[string]string{
		"Size: 4 kB\n":                        "before the first mapping",
		head + "Size: 4 kB\n":                 "no VmFlags",
		head + "Size: 4 MB\n":                 "kB",
		head + "Size: x kB\n":                 "not a number",
		head + "Size: 99999999999999999 kB\n": "out of range",
		head + head:                           "no VmFlags",
		head + "VmFlags: rd \nVmFlags: rd \n": "second VmFlags",
		head + "VmFlags: rd \n" + head:        "before the end",
		head + "Size: 4 kB 5\n":               "unexpected",
	} {
		refuses(t, ParseSmaps, text, want)
	}
}
