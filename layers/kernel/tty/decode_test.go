// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

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

const (
	master      = state.TerminalSide_TERMINAL_SIDE_MASTER
	slave       = state.TerminalSide_TERMINAL_SIDE_SLAVE
	controlling = state.TerminalSide_TERMINAL_SIDE_CONTROLLING
)

func characters() []byte { return make([]byte, controlCharacters) }

func TestHostileTerminalsAreRefused(t *testing.T) {
	good := encode(t, KindTerminal, 1, &state.Terminal{ControlCharacters: characters()})
	for name, r := range map[string]*record.Record{
		"number 0":           encode(t, KindTerminal, 0, &state.Terminal{ControlCharacters: characters()}),
		"large number":       encode(t, KindTerminal, target.MaxTerminals+1, &state.Terminal{ControlCharacters: characters()}),
		"no characters":      encode(t, KindTerminal, 1, &state.Terminal{}),
		"many characters":    encode(t, KindTerminal, 1, &state.Terminal{ControlCharacters: make([]byte, 20)}),
		"set-id bits":        encode(t, KindTerminal, 1, &state.Terminal{ControlCharacters: characters(), Mode: 0o4755}),
		"much input":         encode(t, KindTerminal, 1, &state.Terminal{ControlCharacters: characters(), Input: make([]byte, maxUnread+1)}),
		"much output":        encode(t, KindTerminal, 1, &state.Terminal{ControlCharacters: characters(), Output: make([]byte, maxUnread+1)}),
		"description 0":      encode(t, KindEnd, 0, &state.TerminalEnd{Side: master}),
		"end of number 4096": encode(t, KindEnd, 1, &state.TerminalEnd{Side: master, Index: target.MaxTerminals}),
		"no side":            encode(t, KindEnd, 1, &state.TerminalEnd{}),
		"master by a path":   encode(t, KindEnd, 1, &state.TerminalEnd{Side: master, Path: "/dev/ptmx"}),
		"slave elsewhere":    encode(t, KindEnd, 1, &state.TerminalEnd{Side: slave, Path: "/etc/shadow"}),
		"another slave":      encode(t, KindEnd, 1, &state.TerminalEnd{Side: slave, Path: "/dev/pts/1"}),
		"no /dev/tty":        encode(t, KindEnd, 1, &state.TerminalEnd{Side: controlling, Path: "/dev/sda"}),
		"access mode":        encode(t, KindEnd, 1, &state.TerminalEnd{Side: master, Flags: 3}),
		"flags":              encode(t, KindEnd, 1, &state.TerminalEnd{Side: master, Flags: unix.O_CREAT}),
		"unknown kind":       encode(t, 9, 1, &state.Terminal{}),
		"of a process":       {Header: record.Header{Subsystem: Name, Kind: KindTerminal, Process: 1, Entity: 1}, Payload: good.Payload},
	} {
		s := New(target.Env{})
		if err := s.receive(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s := New(target.Env{})
	for _, r := range []*record.Record{
		good, encode(t, KindEnd, 1, &state.TerminalEnd{Side: master, Flags: unix.O_RDWR}),
		encode(t, KindEnd, 2, &state.TerminalEnd{Side: slave, Path: "/dev/pts/0"}),
		encode(t, KindEnd, 3, &state.TerminalEnd{Side: controlling, Path: "/dev/tty"}),
	} {
		if err := s.receive(r); err != nil {
			t.Errorf("as an export describes it: %v", err)
		}
		if err := s.receive(r); err == nil {
			t.Errorf("%s: accepted twice", r.Header)
		}
	}
}

// TestModes: what is read is what is set.
func TestModes(t *testing.T) {
	in := &unix.Termios{Iflag: 1, Oflag: 2, Cflag: 3, Lflag: 4, Ispeed: 5, Ospeed: 6}
	for i := range in.Cc {
		in.Cc[i] = byte(10 + i)
	}
	m := &state.Terminal{}
	setModes(m, in)
	b := encodeModes(m)
	// struct termios2: four words, c_line, 19 characters, two words.
	want := []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0}
	for i := range 19 {
		want = append(want, byte(10+i))
	}
	want = append(want, 5, 0, 0, 0, 6, 0, 0, 0)
	if !slices.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
}

// FuzzReceive: hostile records give an error or what can be asked for.
func FuzzReceive(f *testing.F) {
	f.Add(uint32(KindTerminal), uint64(1), encode(f, KindTerminal, 1, &state.Terminal{ControlCharacters: characters(), Input: []byte("x")}).Payload)
	f.Add(uint32(KindEnd), uint64(1), encode(f, KindEnd, 1, &state.TerminalEnd{Side: slave, Path: "/dev/pts/0"}).Payload)
	f.Fuzz(func(t *testing.T, kind uint32, entity uint64, payload []byte) {
		s := New(target.Env{})
		if s.receive(&record.Record{Header: record.Header{Kind: kind, Entity: entity}, Payload: payload}) != nil {
			return
		}
		for i, m := range s.terminals {
			if i < 0 || i >= target.MaxTerminals || len(encodeModes(m)) != 44 || m.Mode > 0o777 {
				t.Fatalf("terminal %d: %v", i, m)
			}
		}
		for id, e := range s.ends {
			if id == 0 || e.Flags&^endFlags != 0 || e.Path != "" && e.Path != "/dev/tty" && e.Path != "/dev/console" && e.Path != target.SlavePath(int(e.Index)) {
				t.Fatalf("description %d: %v", id, e)
			}
		}
	})
}
