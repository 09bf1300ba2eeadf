// SPDX-License-Identifier: Apache-2.0

package timer

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func good() *state.PosixTimer {
	return &state.PosixTimer{Id: 3, Clock: 1, Signal: 10, Left: 5, Interval: 7}
}

func pack(t testing.TB, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileTimers: each is refused by name before anything is made.
func TestHostileTimers(t *testing.T) {
	for what, change := range map[string]func(*state.PosixTimer){
		"negative id":     func(m *state.PosixTimer) { m.Id = -1 },
		"clock 99":        func(m *state.PosixTimer) { m.Clock = 99 },
		"clock -5":        func(m *state.PosixTimer) { m.Clock = -5 }, // the clock of descriptor 0
		"notification 3":  func(m *state.PosixTimer) { m.Notify = 3 },
		"signal 0":        func(m *state.PosixTimer) { m.Signal = 0 },
		"signal 65":       func(m *state.PosixTimer) { m.Signal = 65 },
		"of thread 0":     func(m *state.PosixTimer) { m.Notify = sigevThreadID },
		"of thread 9":     func(m *state.PosixTimer) { m.Thread = 9 },
		"times":           func(m *state.PosixTimer) { m.Left = 1 << 63 },
		"times out of":    func(m *state.PosixTimer) { m.Interval = ^uint64(0) },
		"follows timer 3": func(*state.PosixTimer) {},
	} {
		bad := good()
		change(bad)
		list := []*state.PosixTimer{bad}
		if what == "follows timer 3" {
			list = append(list, good())
		}
		s := New(target.Env{})
		r := &record.Record{Header: record.Header{Subsystem: Name, Process: 1, Kind: KindPosix}, Payload: pack(t, &state.PosixTimers{Timer: list})}
		err := s.receive(r)
		if !errors.Is(err, errImage) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestHostileIntervals(t *testing.T) {
	one := &state.IntervalTimer{Which: 1, Left: 1}
	for _, list := range [][]*state.IntervalTimer{{{Which: 3, Left: 1}}, {one, one}, {{Left: 1 << 62}}, {{Interval: ^uint64(0)}}} {
		if _, err := decodeInterval(pack(t, &state.IntervalTimers{Timer: list})); !errors.Is(err, errImage) {
			t.Errorf("%v: %v", list, err)
		}
	}
}

func TestRecordsOutOfPlace(t *testing.T) {
	for _, h := range []record.Header{{Subsystem: Name, Kind: KindPosix}, {Subsystem: Name, Process: 1, Kind: 9}} {
		if err := New(target.Env{}).receive(&record.Record{Header: h}); !errors.Is(err, errImage) {
			t.Errorf("%s: %v", h, err)
		}
	}
}

// TestPendingTimers: what is armed for a timer whose signal is pending.
func TestPendingTimers(t *testing.T) {
	const now = 1000
	for _, c := range []struct {
		name  string
		m     *state.PosixTimer
		left  uint64
		abs   bool
		armed bool
	}{
		{"not running", &state.PosixTimer{}, 0, false, false},
		{"running", &state.PosixTimer{Left: 5}, 5, false, true},
		{"one-shot", &state.PosixTimer{Pending: true}, 1, false, true},
		{"periodic keeps its phase", &state.PosixTimer{Pending: true, Left: 30, Interval: 100}, now - 70, true, true},
		{"longer than the clock", &state.PosixTimer{Pending: true, Left: 30, Interval: 5000}, 1, false, true},
		{"set anew while pending", &state.PosixTimer{Pending: true, Left: 500, Interval: 100}, 1, false, true},
	} {
		s, armed := posixSpec(c.m, now)
		if armed != c.armed || s.left != c.left || (s.flags != 0) != c.abs {
			t.Errorf("%s: armed %v, left %d, flags %d", c.name, armed, s.left, s.flags)
		}
	}
}

func TestRefusals(t *testing.T) {
	thread := []procfs.Timer{{ID: 4, ClockID: 3}}
	if r := refuse(thread, 1); len(r) != 0 {
		t.Errorf("one thread: %v", r)
	}
	if r := refuse(thread, 2); len(r) != 1 || !strings.Contains(r[0].Error(), "timer 4") {
		t.Errorf("two threads: %v", r)
	}
	if r := refuse([]procfs.Timer{{ID: 1, ClockID: -5}, {ID: 2, ClockID: 1}}, 1); len(r) != 1 {
		t.Errorf("descriptor's clock: %v", r)
	}
}

// FuzzReceive: hostile records give an error or timers that can be made.
func FuzzReceive(f *testing.F) {
	f.Add(uint32(KindPosix), pack(f, &state.PosixTimers{Timer: []*state.PosixTimer{good()}}))
	f.Add(uint32(KindInterval), pack(f, &state.IntervalTimers{Timer: []*state.IntervalTimer{{Which: 1, Left: 5}}}))
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		s := New(target.Env{})
		if s.receive(&record.Record{Header: record.Header{Subsystem: Name, Process: 1, Kind: kind}, Payload: payload}) != nil {
			return
		}
		k := s.kept[1]
		k.signals()
		for _, m := range k.posix {
			if sp, ok := posixSpec(m, 1<<62); ok {
				if sp.left == 0 || int64(sp.left) < 0 {
					t.Fatalf("%v is armed with %d", m, sp.left)
				}
				sp.encode(make([]byte, specSize))
			}
			encodeSigevent(make([]byte, sigeventSize), m)
		}
		for _, m := range k.interval {
			sp := intervalSpec(m)
			sp.encode(make([]byte, specSize))
		}
	})
}
