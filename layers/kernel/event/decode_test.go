// SPDX-License-Identifier: Apache-2.0

package event

import (
	"math"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func encode(t testing.TB, kind uint32, entity uint64, m proto.Message) *record.Record {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Record{Header: record.Header{Subsystem: Name, Kind: kind, Entity: entity}, Payload: b}
}

func encodeMark(t testing.TB, mark *state.GroupMark) *record.Record {
	t.Helper()
	good := &state.GroupMark{Object: unix.FAN_MARK_MOUNT, Mask: unix.FAN_OPEN, Path: "/"}
	return encode(t, KindGroup, 1, &state.EventGroup{Mark: []*state.GroupMark{good, mark}})
}

func TestHostileRecordsAreRefused(t *testing.T) {
	good := &state.PollTarget{Fd: 3, Description: 4}
	for name, r := range map[string]*record.Record{
		"description 0":      encode(t, KindCounter, 0, &state.EventCounter{}),
		"flags":              encode(t, KindCounter, 1, &state.EventCounter{Flags: 1 << 30}),
		"counter":            encode(t, KindCounter, 1, &state.EventCounter{Count: math.MaxUint64}),
		"clock":              encode(t, KindTimer, 1, &state.EventTimer{Clock: 5}),
		"timer flags":        encode(t, KindTimer, 1, &state.EventTimer{SettimeFlags: 8}),
		"time":               encode(t, KindTimer, 1, &state.EventTimer{Remaining: 1 << 63}),
		"expiry":             encode(t, KindTimer, 1, &state.EventTimer{Expiry: -1}),
		"number":             encode(t, KindPoll, 1, &state.EventPoll{Target: []*state.PollTarget{{Fd: maxFD, Description: 1}}}),
		"target 0":           encode(t, KindPoll, 1, &state.EventPoll{Target: []*state.PollTarget{{Fd: 1}}}),
		"registration twice": encode(t, KindPoll, 1, &state.EventPoll{Target: []*state.PollTarget{good, good}}),
		"no process":         encode(t, KindProcess, 1, &state.EventProcess{}),
		"process and ended":  encode(t, KindProcess, 1, &state.EventProcess{Pid: 2, Ended: 1}),
		"too many ended":     encode(t, KindProcess, 1, &state.EventProcess{Ended: maxEnded + 1}),
		"status":             encode(t, KindProcess, 1, &state.EventProcess{Ended: 1, Status: 1 << 16}),
		"flags of a pidfd":   encode(t, KindProcess, 1, &state.EventProcess{Pid: 2, Flags: 0o2000}),
		"watches backwards":  encode(t, KindFiles, 1, &state.EventFiles{Watch: []*state.FileWatch{{Number: 2, Mask: 1, Path: "/a"}, {Number: 1, Mask: 1, Path: "/b"}}}),
		"watch 0":            encode(t, KindFiles, 1, &state.EventFiles{Watch: []*state.FileWatch{{Mask: 1, Path: "/a"}}}),
		"mask of a watch":    encode(t, KindFiles, 1, &state.EventFiles{Watch: []*state.FileWatch{{Number: 1, Mask: 1 << 29, Path: "/a"}}}),
		"nothing watched":    encode(t, KindFiles, 1, &state.EventFiles{Watch: []*state.FileWatch{{Number: 1, Path: "/a"}}}),
		"path of a watch":    encode(t, KindFiles, 1, &state.EventFiles{Watch: []*state.FileWatch{{Number: 1, Mask: 1, Path: "/a/../b"}}}),
		"flags of a group":   encode(t, KindGroup, 1, &state.EventGroup{Init: unix.FAN_REPORT_MNT}),
		"flags of its files": encode(t, KindGroup, 1, &state.EventGroup{EventFlags: unix.O_CREAT}),
		"limitless overflow": encode(t, KindGroup, 1, &state.EventGroup{Init: unix.FAN_UNLIMITED_QUEUE, Overflow: true}),
		"object of a mark":   encodeMark(t, &state.GroupMark{Object: unix.FAN_MARK_MNTNS, Mask: 1, Path: "/a"}),
		"flags of a mark":    encodeMark(t, &state.GroupMark{Flags: unix.FAN_MARK_FLUSH, Mask: 1, Path: "/a"}),
		"a mark that waits":  encodeMark(t, &state.GroupMark{Mask: unix.FAN_OPEN_PERM, Path: "/a"}),
		"one that ignores":   encodeMark(t, &state.GroupMark{Mask: 1, Ignored: unix.FAN_PRE_ACCESS, Path: "/a"}),
		"a mark of nothing":  encodeMark(t, &state.GroupMark{Path: "/a"}),
		"path of a mark":     encodeMark(t, &state.GroupMark{Mask: 1, Path: "a"}),
		"unknown kind":       encode(t, 9, 1, &state.EventPoll{}),
	} {
		if _, err := decode(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r := encode(t, KindCounter, 1, &state.EventCounter{})
	r.Process = 1
	if _, err := decode(r); err == nil {
		t.Error("a description that belongs to a process was accepted")
	}
}

func TestClassify(t *testing.T) {
	timerfd := func(clock int, flags uint32, left int64) *target.Descriptor {
		d := &target.Descriptor{Link: procfs.FDLink{Kind: procfs.FDTimerfd}}
		d.Info.Timerfd = &procfs.TimerfdInfo{ClockID: clock, SettimeFlags: flags, Value: procfs.Timespec{Sec: left, Nsec: 7}}
		return d
	}
	_, msg, err := classify(timerfd(1, 1, 5), 1)
	if m, ok := msg.(*state.EventTimer); err != nil || !ok || m.Remaining != 5e9+7 || m.Expiry != 0 {
		t.Errorf("an absolute monotonic timer is carried by what is left of it: %v %v", msg, err)
	}
	_, msg, err = classify(timerfd(0, 3, 5), 1)
	if m, ok := msg.(*state.EventTimer); err != nil || !ok || m.Expiry == 0 {
		t.Errorf("a timer of the calendar is carried by its time: %v %v", msg, err)
	}
	for _, d := range []*target.Descriptor{
		timerfd(99, 0, 1),
		{Link: procfs.FDLink{Kind: procfs.FDFanotify}}, // likewise
		{Link: procfs.FDLink{Kind: procfs.FDEventfd}},  // a kernel that shows no counter
	} {
		if _, _, err := classify(d, 1); err == nil {
			t.Errorf("%v was accepted", d.Link.Kind)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint32(KindTimer), encode(f, KindTimer, 1, &state.EventTimer{Clock: 1, Remaining: 5}).Payload)
	f.Add(uint32(KindPoll), encode(f, KindPoll, 1, &state.EventPoll{Target: []*state.PollTarget{{Fd: 3, Description: 4}}}).Payload)
	f.Add(uint32(KindProcess), encode(f, KindProcess, 1, &state.EventProcess{Ended: 1, Status: 256}).Payload)
	f.Add(uint32(KindFiles), encode(f, KindFiles, 1, &state.EventFiles{Watch: []*state.FileWatch{{Number: 1, Mask: 2, Path: "/a"}}}).Payload)
	f.Add(uint32(KindGroup), encodeMark(f, &state.GroupMark{Mask: 2, Ignored: 1, Flags: unix.FAN_MARK_IGNORE, Path: "/a"}).Payload)
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		msg, err := decode(&record.Record{Header: record.Header{Kind: kind, Entity: 1}, Payload: payload})
		if err != nil {
			return
		}
		switch m := msg.(type) {
		case *state.EventTimer:
			if !clocks[m.Clock] || m.Remaining > maxTime {
				t.Fatalf("timer %v", m)
			}
		case *state.EventFiles:
			for _, w := range m.Watch {
				if w.Number == 0 || w.Mask&^uint32(watchMask) != 0 || w.Path == "" || w.Path[0] != '/' {
					t.Fatalf("watch %v", w)
				}
			}
		case *state.EventGroup:
			for _, mark := range m.Mark {
				if (mark.Mask|mark.Ignored)&decideMask != 0 || mark.Path == "" || mark.Path[0] != '/' {
					t.Fatalf("mark %v", mark)
				}
			}
		case *state.EventProcess:
			if (m.Pid == 0) == (m.Ended == 0) || m.Ended > maxEnded {
				t.Fatalf("pidfd %v", m)
			}
		case *state.EventPoll:
			for _, target := range m.Target {
				if target.Description == 0 || target.Fd >= maxFD {
					t.Fatalf("target %v", target)
				}
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add([]byte("\x07\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x18\x00\x08name\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := eachName(b, func(_ uint64, _ byte, name string) {
			if len(name) > len(b) {
				t.Fatalf("name %q", name)
			}
		})
		if n > len(b) {
			t.Fatalf("%d names in %d bytes", n, len(b))
		}
	})
}
