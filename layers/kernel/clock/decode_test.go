// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func encode(t testing.TB, kind uint32, m *state.Clocks) *record.Record {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Record{Header: record.Header{Subsystem: Name, Kind: kind}, Payload: b}
}

func TestHostileClocksAreRefused(t *testing.T) {
	good := &state.Clocks{Monotonic: 5, Boottime: 7}
	if _, err := decode(encode(t, KindBegin, good)); err != nil {
		t.Error(err)
	}
	ofProcess := encode(t, KindBegin, good)
	ofProcess.Process = 1
	for name, r := range map[string]*record.Record{
		"kind":        encode(t, 3, good),
		"negative":    encode(t, KindBegin, &state.Clocks{Monotonic: -1}),
		"far ahead":   encode(t, KindBegin, &state.Clocks{Boottime: maxTime + 1}),
		"a process's": ofProcess,
		"garbage":     {Header: record.Header{Subsystem: Name, Kind: KindBegin}, Payload: []byte{0xff}},
	} {
		if _, err := decode(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s := New(target.Env{Frame: &target.Frame{SharesTime: true}})
	if err := s.receive(encode(t, KindStop, good)); err == nil {
		t.Error("clocks stop before they begin")
	}
	s = New(target.Env{Frame: &target.Frame{SharesTime: true}})
	if err := s.receive(encode(t, KindBegin, good)); err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.Status().Note, "this host's") {
		t.Errorf("note %q", s.Status().Note)
	}
	if err := s.receive(encode(t, KindBegin, good)); err == nil {
		t.Error("clocks begin twice")
	}
}

func TestTextOfOffsets(t *testing.T) {
	for want, o := range map[string]offsets{
		"monotonic 0 0\nboottime 0 0\n":                 {},
		"monotonic -1 999999999\nboottime 1 1\n":        {-1, 1_000_000_001},
		"monotonic -2 0\nboottime -3 500000000\n":       {-2_000_000_000, -2_500_000_000},
		"monotonic 1000000 0\nboottime -42 999999999\n": {1_000_000_000_000_000, -41_000_000_001},
	} {
		if got := o.text(); got != want {
			t.Errorf("%v: %q, want %q", o, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint32(KindBegin), encode(f, KindBegin, &state.Clocks{Monotonic: 5}).Payload)
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		m, err := decode(&record.Record{Header: record.Header{Kind: kind}, Payload: payload})
		if err == nil && (m.Monotonic < 0 || m.Boottime < 0) {
			t.Fatalf("%v", m)
		}
	})
}
