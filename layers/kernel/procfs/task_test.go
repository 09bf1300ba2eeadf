// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	got := must(ParseStat(golden(t, "stat")))(t)
	equal(t, got, Stat{Pid: 42, Comm: "a) S (x\n\\", State: 't', PPid: 41, Pgrp: 42, Session: 40, TTYNr: 34816,
		Tpgid: 42, Flags: 4194368, MinFlt: 213, CMinFlt: 418, MajFlt: 1, CMajFlt: 2, Utime: 3, Stime: 4,
		CUtime: -5, CStime: -6, Priority: 20, Nice: -7, NumThreads: 2, StartTime: 60896, VSize: 4730880,
		RSS: 496, RSSLim: Unlimited, StartCode: 94550148194304, EndCode: 94550148983709,
		StartStack: 140730861327024, KstkESP: 7, KstkEIP: 8, Signal: 9, Blocked: 10, SigIgnore: 65536,
		SigCatch: 81922, Wchan: 1, NSwap: 11, CNSwap: 12, ExitSignal: 17, Processor: 1, RTPriority: 13,
		Policy: 14, DelayacctBlkioTicks: 15, GuestTime: 16, CGuestTime: -17, StartData: 94550149217008,
		EndData: 94550149265252, StartBrk: 94550456000512, ArgStart: 140730861329245,
		ArgEnd: 140730861329260, EnvStart: 140730861329261, EnvEnd: 140730861330410, ExitCode: 256})
	if tty := got.TTY(); tty != (Dev{136, 0}) {
		t.Errorf("tty is %v, want pts/0", tty)
	}
}

func TestParseStatEdges(t *testing.T) {
	text := string(golden(t, "stat"))
	refuses(t, ParseStat, strings.TrimSuffix(text, "\n"), "cut off")
	refuses(t, ParseStat, "42 bash S 1\n", "parentheses")
	refuses(t, ParseStat, "42 (bash) Q 1\n", "state")
	refuses(t, ParseStat, "42 (ba\\xsh) S 1\n", "backslash")
	refuses(t, ParseStat, "42 (bash) S 1 2\n", "session is missing")
	refuses(t, ParseStat, strings.Replace(text, " 41 ", " 99999999999 ", 1), "ppid is out of range")
	more := must(ParseStat([]byte(strings.Replace(text, "\n", " 7\n", 1))))(t)
	equal(t, more.Extra, []string{"7"})
	pts300 := Stat{TTYNr: 136<<8 | 300&0xff | 300&^0xff<<12}
	equal(t, pts300.TTY(), Dev{136, 300})
}

func TestParseStatus(t *testing.T) {
	got := must(ParseStatus(golden(t, "status")))(t)
	const k = 1024
	equal(t, got, Status{Name: "a\n\\b c", State: 't', Umask: 0o22, Tgid: 42, Pid: 43, PPid: 41, TracerPid: 99,
		UID: IDs{1, 2, 3, 4}, GID: IDs{5, 6, 7, 4294967295}, FDSize: 256, Groups: []uint32{4, 24, 27},
		NStgid: []int{42, 1}, NSpid: []int{43, 2}, NSpgid: []int{42, 1}, NSsid: []int{40, 0}, HasMM: true,
		Vm: StatusVM{Peak: 5004 * k, Size: 4620 * k, Locked: k, Pinned: 2 * k, HWM: 1904 * k, RSS: 1904 * k,
			RSSAnon: 492 * k, RSSFile: 1412 * k, RSSShmem: 3 * k, Data: 564 * k, Stack: 132 * k, Exe: 772 * k,
			Lib: 1596 * k, PTE: 48 * k, Swap: 4 * k, Hugetlb: 5 * k},
		THPEnabled: true, UntagMask: Unlimited, Threads: 2,
		Sig: SigSets{Pending: 1, SharedPending: 2, Blocked: 1 << 16, Ignored: 1 << 12, Caught: 0x14002,
			Queued: 3, QueueLimit: 96365},
		Cap: CapSets{Inheritable: 1, Permitted: 0x1fffeffffff, Effective: 0xa80425fb, Bounding: 0x1fffeffffff,
			Ambient: 0x400},
		NoNewPrivs: true, Seccomp: SeccompFilter, SeccompFilters: 1, SpeculationStoreBypass: "vulnerable",
		SpeculationIndirectBranch: "always enabled", CPUsAllowedList: "0-1", MemsAllowedList: "0",
		X86ThreadFeatures: []string{"shstk", "wrss"}, X86ThreadFeaturesLocked: []string{},
		VoluntarySwitches: 7, NonvoluntarySwitches: 8, Extra: map[string]string{"FutureField": "some value"}})
}

func TestParseStatusRefuses(t *testing.T) {
	text := string(golden(t, "status"))
	cut := func(line string) string {
		before, after, _ := strings.Cut(text, line)
		_, after, _ = strings.Cut(after, "\n")
		return before + after
	}
	refuses(t, ParseStatus, cut("SigCgt"), `no line "SigCgt"`)
	refuses(t, ParseStatus, text+"Pid:\t1\n", "twice")
	refuses(t, ParseStatus, text+"nonsense\n", "no colon")
	refuses(t, ParseStatus, text+"VmLib: 4 MB\n", "kB")
	refuses(t, ParseStatus, strings.Replace(text, "Uid:\t1\t2\t3\t4", "Uid:\t1\t2\t3", 1), "fs id is missing")
	refuses(t, ParseStatus, strings.Replace(text, "t (tracing", "? (tracing", 1), "state")
	refuses(t, ParseStatus, strings.Replace(text, "3/96365", "3", 1), "queued")
	zombie := must(ParseStatus([]byte(cut("Umask"))))(t)
	if zombie.Umask != -1 {
		t.Errorf("umask of a task without fs is %d", zombie.Umask)
	}
}

func TestParseLimits(t *testing.T) {
	text := string(golden(t, "limits"))
	got := must(ParseLimits([]byte(text)))(t)
	const nofile, stack, nice = 7, 3, 13 // RLIMIT_*
	equal(t, []Limit{got[nofile], got[stack], got[nice], got[0]},
		[]Limit{{1024, 20000}, {8388608, Unlimited}, {0, 0}, {Unlimited, Unlimited}})
	lines := strings.SplitAfter(text, "\n")
	refuses(t, ParseLimits, strings.Join(lines[1:], ""), "heading")
	refuses(t, ParseLimits, strings.Join(lines[:16], ""), "Max realtime timeout")
	refuses(t, ParseLimits, text+lines[3], "second line")
	refuses(t, ParseLimits, text+"Max new thing 1 2 x\n", "unknown limit")
	refuses(t, ParseLimits, strings.Replace(text, "8388608", "many", 1), "soft limit is not a number")
}

func TestParseTimers(t *testing.T) {
	text := string(golden(t, "timers"))
	equal(t, must(ParseTimers([]byte(text)))(t), []Timer{
		{ID: 1, Signal: 34, Value: 0x7ffd00001234, Notify: NotifySignal, ByThread: true, Target: 8364, ClockID: 1},
		{ID: 0, Signal: 10, Notify: NotifyNone, Target: 8363, ClockID: -6}})
	equal(t, must(ParseTimers(nil))(t), nil)
	refuses(t, ParseTimers, strings.TrimSuffix(text, "ClockID: -6\n"), "incomplete")
	refuses(t, ParseTimers, "signal: 1/0\n", `expected "ID: "`)
	refuses(t, ParseTimers, strings.Replace(text, "signal/tid", "pigeon/tid", 1), "pigeon")
	refuses(t, ParseTimers, strings.Replace(text, "/tid", "/uid", 1), "uid")
}

func TestParseValues(t *testing.T) {
	equal(t, must(ParseDecimal([]byte("4294967295")))(t), 4294967295)
	equal(t, must(ParseDecimal([]byte("50000\n")))(t), 50000)
	equal(t, must(ParseHex32([]byte("00040000\n")))(t), 0x40000)
	equal(t, must(ParseOOMScoreAdj([]byte("-1000\n")))(t), -1000)
	refuses(t, ParseOOMScoreAdj, "1001\n", "out of range")
	refuses(t, ParseDecimal, "\n", "missing")
	refuses(t, ParseDecimal, "1 2\n", "unexpected")
	refuses(t, ParseDecimal, "18446744073709551616", "out of range")
	refuses(t, ParseHex32, "100000000\n", "out of range")
	equal(t, must(ParseComm([]byte("a\nb\n")))(t), "a\nb")
	refuses(t, ParseComm, "a", "cut off")
	equal(t, must(ParseCmdline([]byte("a\x00\x00b c\x00")))(t), []string{"a", "", "b c"})
	equal(t, must(ParseCmdline([]byte("title")))(t), []string{"title"})
	equal(t, must(ParseCmdline(nil))(t), nil)
	equal(t, must(ParseChildren([]byte("1 22 333 ")))(t), []int{1, 22, 333})
	refuses(t, ParseChildren, "1 x ", "pid")
	pair := "\x06\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00"
	end := strings.Repeat("\x00", 16)
	equal(t, must(ParseAuxv([]byte(pair+end+pair)))(t), []AuxEntry{{6, 4096}})
	refuses(t, ParseAuxv, pair+"x", "multiple of 16")
}

func TestParseNamespaceFiles(t *testing.T) {
	equal(t, must(ParseCgroup(golden(t, "cgroup")))(t), []CgroupEntry{
		{Hierarchy: 12, Controllers: []string{"cpu", "cpuacct"}, Path: "/a:b"},
		{Hierarchy: 3, Controllers: []string{"name=systemd"}, Path: "/x", Deleted: true}, {Path: "/../y"}})
	refuses(t, ParseCgroup, "0::x\n", "slash")
	refuses(t, ParseCgroup, "0:/x\n", "controllers")
	equal(t, must(ParseIDMap(golden(t, "uid_map")))(t), []IDMap{{0, 100000, 65536}, {65536, 0, 1}})
	refuses(t, ParseIDMap, "0 1\n", "count is missing")
	equal(t, must(ParseTimensOffsets(golden(t, "timens_offsets")))(t),
		[]TimensOffset{{"monotonic", 1000000, 0}, {"boottime", -42, 999999999}})
}

func TestParseMountinfo(t *testing.T) {
	equal(t, must(ParseMountinfo(golden(t, "mountinfo")))(t), []Mount{
		{ID: 22, Parent: 27, Dev: Dev{0, 21}, Root: "/", Target: "/proc", Options: []string{"rw", "relatime"},
			FSType: "proc", Source: "proc", SuperOptions: []string{"rw"}},
		{ID: 36, Parent: 35, Dev: Dev{98, 0}, Root: `/mnt1\x`, Target: "/mnt 2", Options: []string{"rw", "noatime"},
			Shared: 5, Master: 1, PropagateFrom: 2, Unbindable: true, ExtraTags: []string{"new:1"}, FSType: "ext3",
			Source: "/dev/root", SuperOptions: []string{"rw", "errors=continue"}},
		{ID: 37, Parent: 35, Dev: Dev{0, 50}, Root: "/gone", RootDeleted: true, Target: "/x", Options: []string{"rw"},
			FSType: "tmpfs", Source: "", SuperOptions: []string{"rw", "size=4k"}}})
	for text, want := range map[string]string{
		"22 27 0:21 / /proc rw shared:1 proc proc rw\n": "separator is missing",
		"22 27 021 / /proc rw - proc proc rw\n":         "device",
		"22 27 0:21 / /proc rw shared:x - p p rw\n":     "peer group",
		"22 27 0:21 / /proc rw - proc\n":                "type",
	} {
		refuses(t, ParseMountinfo, text, want)
	}
}
