// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"strings"
	"testing"
)

func TestParseFDInfo(t *testing.T) {
	base := FDInfo{Flags: 0o2000002, MntID: 17, Ino: 1038, TTYIndex: -1}
	with := func(change func(*FDInfo)) FDInfo { d := base; change(&d); return d }
	handle := &FileHandle{Type: 1, Handle: []byte{0xa3, 0xc4, 3, 0, 0, 0, 0, 0}}
	mask := uint64(5)
	root := Dev{0xfe, 0}
	for name, want := range map[string]FDInfo{
		"regular": {Pos: 4096, Flags: 0o2100001, MntID: 27, Ino: 9980104, TTYIndex: -1, Locks: []Lock{
			{ID: 1, Class: LockFlock, Mode: "ADVISORY", Access: "READ", Pid: 8364, Dev: root, Inode: 9980104, End: LockEOF},
			{ID: 2, Class: LockPOSIX, Mode: "ADVISORY", Access: "WRITE", Pid: 8364, Dev: root, Inode: 9980104, End: 4}}},
		"eventfd": with(func(d *FDInfo) { d.Eventfd = &EventfdInfo{Count: 0x5f, ID: 4, Semaphore: true} }),
		"epoll": with(func(d *FDInfo) {
			d.Epoll = []EpollTarget{{FD: 6, Events: 0x19, Data: 6, Ino: 0x40e, Dev: Dev{0, 16}},
				{FD: 7, Events: 1 << 30, Data: Unlimited, Pos: -1, Ino: 0x3c4a3, Dev: Dev{0xfe, 1}}}
		}),
		"timerfd": with(func(d *FDInfo) {
			d.Timerfd = &TimerfdInfo{ClockID: 1, Ticks: 2, SettimeFlags: 1, Value: Timespec{99, 999919037}, Interval: Timespec{1, 5}}
		}),
		"signalfd": with(func(d *FDInfo) { d.Signalfd = &mask }),
		"inotify": with(func(d *FDInfo) {
			d.Inotify = []InotifyWatch{{WD: 20, Ino: 0x3c4a3, Dev: root, Mask: 0xfff, Handle: handle},
				{WD: 1, Ino: 2, Dev: Dev{0, 16}, Mask: 2}}
		}),
		"fanotify": with(func(d *FDInfo) {
			d.Fanotify = &FanotifyInfo{EventFlags: 0x8000, Marks: []FanotifyMark{{MntID: 27, Mask: 2},
				{Ino: 0x3c4a3, Dev: root, MFlags: 0x40, Mask: 2, IgnoredMask: 1, Handle: handle}, {Dev: root, Mask: 8}}}
		}),
		"fanotify-fid": with(func(d *FDInfo) {
			d.Fanotify = &FanotifyInfo{Flags: 0x1e03, EventFlags: 0x8002, Marks: []FanotifyMark{
				{Ino: 0xa26790, Dev: root, MFlags: 0x440, Mask: 0x48000120, IgnoredMask: 0x40000020, Handle: handle},
				{Ino: 2, Dev: Dev{0, 16}, Mask: 0x8000020}, {MntNS: 4026531832, Mask: 0x1000000}}}
		}),
		"pidfd":      with(func(d *FDInfo) { d.Pidfd = &PidfdInfo{Pid: 8364, NSpid: []int{8364, 7}} }),
		"pidfd-dead": with(func(d *FDInfo) { d.Pidfd = &PidfdInfo{Pid: -1} }),
		"ptmx":       with(func(d *FDInfo) { d.TTYIndex = 3 }),
		"socket":     with(func(d *FDInfo) { d.SCMFds = 2 }),
		"io_uring": with(func(d *FDInfo) {
			d.IOUring = true
			d.Extra = []string{"SqMask:\t0x3", "SqHead:\t0", "UserFiles:\t1", "    0: /etc/passwd", "PollList:", "CqOverflowList:"}
		}),
		"userfaultfd": with(func(d *FDInfo) {
			d.Userfaultfd = true
			d.Extra = []string{"pending:\t0", "total:\t0", "API:\taa:0:80000000000001ff"}
		}),
		"bpf-map": with(func(d *FDInfo) {
			d.BPF = true
			d.Extra = []string{"map_type:\t2", "key_size:\t4", "map_flags:\t0x0"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			equal(t, must(ParseFDInfo(golden(t, "fdinfo/"+name)))(t), want)
		})
	}
}

func TestParseFDInfoRefuses(t *testing.T) {
	const head = "pos:\t0\nflags:\t02\nmnt_id:\t17\n"
	for text, want := range map[string]string{
		"":                      "missing",
		"pos:\t0\nflags:\t02\n": "missing",
		head + "lock:\t1: GUESS ADVISORY READ 1 fe:00:1 0 EOF\n":             "unknown lock class",
		head + "lock:\t1: POSIX ADVISORY READ 1 fe:00 0 EOF\n":               "device",
		head + "clockid: 1\nticks: 2\n":                                      "incomplete",
		head + "it_value: (1; 2)\n":                                          "seconds",
		head + "eventfd-count: xyz\n":                                        "count is not a number",
		head + "tfd: 1 events: 1 data: 1 pos:0 who:7\n":                      "unknown key",
		head + "tfd: 1 events: 1\n":                                          "data",
		head + "inotify wd:1 ino:1 sdev:1 mask:1 ignored_mask:0 color:7\n":   "unknown key",
		head + "inotify wd:1 fhandle-bytes:8 fhandle-type:1 f_handle:a3c4\n": "fhandle-bytes says 8",
		head + "inotify wd:1 fhandle-bytes:1 fhandle-type:1 f_handle:zz\n":   "f_handle",
		head + "fanotify mnt_id:1\n":                                         "expected",
		head + "fanotify flags:0 event-flags:0\nfanotify wd:1\n":             "unknown key",
		head + "fanotify flags:0 event-flags:0\nfanotify mnt_ns:f0\n":        "mnt_ns",
		head + "fanotify flags:0\n":                                          "expected",
		head + "fanotify flags:0 event-flags:100000000\n":                    "event-flags",
		head + "fanotify flags:0 event-flags:0\nfanotify mask:g\n":           "mask",
		strings.Replace(head, "02", "09", 1):                                 "flags is not a number",
	} {
		refuses(t, ParseFDInfo, text, want)
	}
}

func TestFDInfoExtraIsBounded(t *testing.T) {
	text := "pos:\t0\nflags:\t02\nmnt_id:\t17\n" + strings.Repeat("    1: /x\n", maxExtra+7)
	got := must(ParseFDInfo([]byte(text)))(t)
	if len(got.Extra) != maxExtra || got.ExtraDropped != 7 {
		t.Errorf("kept %d and dropped %d lines, want %d and 7", len(got.Extra), got.ExtraDropped, maxExtra)
	}
}

func TestParseLocks(t *testing.T) {
	root := Dev{0xfe, 0}
	equal(t, must(ParseLocks(golden(t, "locks")))(t), []Lock{
		{ID: 1, Class: LockPOSIX, Mode: "ADVISORY", Access: "WRITE", Pid: 8364, Dev: root, Inode: 9980104, End: 4},
		{ID: 1, Depth: 1, Class: LockPOSIX, Mode: "ADVISORY", Access: "READ", Pid: 8365, Dev: root, Inode: 9980104, End: LockEOF},
		{ID: 1, Depth: 2, Class: LockPOSIX, Mode: "ADVISORY", Access: "WRITE", Pid: 8366, Dev: root, Inode: 9980104, Start: 2, End: 3},
		{ID: 2, Class: LockLease, Mode: "BREAKING", Access: "UNLCK", Pid: 8364, Dev: root, Inode: 9980106, End: LockEOF},
		{ID: 3, Class: LockOFD, Mode: "ADVISORY", Access: "WRITE", Pid: -1, Dev: root, Inode: 9980105, End: 9},
		{ID: 4, Class: LockFlock, Mode: "ADVISORY", Access: "READ", End: LockEOF}})
}

func TestParseFDLink(t *testing.T) {
	for target, want := range map[string]FDLink{
		"/etc/passwd":                   {Kind: FDPath, Path: "/etc/passwd"},
		"/":                             {Kind: FDPath, Path: "/"},
		"/tmp/x (deleted)":              {Kind: FDPath, Path: "/tmp/x", Deleted: true},
		"/tmp/a\nb":                     {Kind: FDPath, Path: "/tmp/a\nb"},
		"/tmp/socket:[12]":              {Kind: FDPath, Path: "/tmp/socket:[12]"},
		"/dev/null":                     {Kind: FDDevice, Path: "/dev/null"},
		"/dev/shm/sem.x (deleted)":      {Kind: FDPath, Path: "/dev/shm/sem.x", Deleted: true},
		"/memfd:a b (deleted)":          {Kind: FDMemfd, Name: "a b", Deleted: true},
		"/memfd:x":                      {Kind: FDPath, Path: "/memfd:x"},
		"socket:[123]":                  {Kind: FDSocket, Name: "socket", Inode: 123},
		"pipe:[124]":                    {Kind: FDPipe, Name: "pipe", Inode: 124},
		"net:[4026531833]":              {Kind: FDNamespace, Name: "net", Inode: 4026531833},
		"pidfd:[99]":                    {Kind: FDPidfd, Name: "pidfd", Inode: 99},
		"dma:[1]":                       {Kind: FDOther, Name: "dma", Inode: 1},
		"anon_inode:[eventfd]":          {Kind: FDEventfd, Name: "eventfd"},
		"anon_inode:[eventpoll]":        {Kind: FDEpoll, Name: "eventpoll"},
		"anon_inode:[timerfd]":          {Kind: FDTimerfd, Name: "timerfd"},
		"anon_inode:[signalfd]":         {Kind: FDSignalfd, Name: "signalfd"},
		"anon_inode:inotify":            {Kind: FDInotify, Name: "inotify"},
		"anon_inode:[fanotify]":         {Kind: FDFanotify, Name: "fanotify"},
		"anon_inode:[pidfd]":            {Kind: FDPidfd, Name: "pidfd"},
		"anon_inode:[io_uring]":         {Kind: FDIOUring, Name: "io_uring"},
		"anon_inode:[perf_event]":       {Kind: FDPerf, Name: "perf_event"},
		"anon_inode:[userfaultfd]":      {Kind: FDUserfaultfd, Name: "userfaultfd"},
		"anon_inode:bpf-map":            {Kind: FDBPF, Name: "bpf-map"},
		"anon_inode:bpf_link":           {Kind: FDBPF, Name: "bpf_link"},
		"anon_inode:seccomp notify":     {Kind: FDSeccomp, Name: "seccomp notify"},
		"anon_inode:[landlock-ruleset]": {Kind: FDAnonInode, Name: "landlock-ruleset"},
	} {
		equal(t, must(ParseFDLink(target))(t), want)
	}
	for _, target := range []string{"", "x", "socket:", "socket:[", "socket:[x]", "socket:[1", ":[1]", "[heap]"} {
		refuses(t, func(b []byte) (FDLink, error) { return ParseFDLink(string(b)) }, target, "link")
	}
	equal(t, must(ParseNSLink("mnt:[4026531832]"))(t), NSLink{"mnt", 4026531832})
	refuses(t, func(b []byte) (NSLink, error) { return ParseNSLink(string(b)) }, "/x", "ns link")
}
