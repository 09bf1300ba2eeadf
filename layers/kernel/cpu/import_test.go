// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cpu

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/arch/amd64"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func pack(t testing.TB, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *Subsystem) take(kind uint32, process record.ProcessID, entity uint64, payload []byte) error {
	return s.receive(&record.Record{Header: record.Header{Subsystem: Name, Process: process, Kind: kind, Entity: entity}, Payload: payload})
}

// layout is this host's as a record.
func layout() *state.XSaveLayout {
	l := tracer.HostXSave()
	m := &state.XSaveLayout{Features: l.Features}
	for _, c := range l.Components {
		m.Component = append(m.Component, &state.XSaveComponent{Bit: uint32(c.Bit), Offset: c.Offset, Size: c.Size})
	}
	return m
}

func thread(t testing.TB, change func(*amd64.Registers)) *state.ThreadCPU {
	r := amd64.Registers{Cs: 0x33, Ss: 0x2b, OrigRax: 35, Rax: 5}
	change(&r)
	b, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	l := tracer.HostXSave()
	return &state.ThreadCPU{Registers: b, Xsave: make([]byte, l.Size(l.Features))}
}

// TestHostileRegisters: what no thread can have is refused at once.
func TestHostileRegisters(t *testing.T) {
	same := func(*amd64.Registers) {}
	good, short, torn := thread(t, same), thread(t, same), thread(t, same)
	short.Registers = short.Registers[:26*8]
	torn.Xsave = torn.Xsave[:500]
	compat := thread(t, func(r *amd64.Registers) { r.Cs = 0x23 })
	noSleep := thread(t, func(r *amd64.Registers) { r.Rax = 0 })
	noSleep.Sleep = 1
	backwards := thread(t, func(r *amd64.Registers) { r.Rax = 35 })
	backwards.Sleep = -1
	for what, feed := range map[string]func(*Subsystem) error{
		"a sleep in read":   func(s *Subsystem) error { return s.take(KindThread, 1, 1, pack(t, noSleep)) },
		"a sleep before 0":  func(s *Subsystem) error { return s.take(KindThread, 1, 1, pack(t, backwards)) },
		"before the layout": func(s *Subsystem) error { s.layout = nil; return s.take(KindThread, 1, 1, pack(t, good)) },
		"thread 0":          func(s *Subsystem) error { return s.take(KindThread, 1, 0, pack(t, good)) },
		"a huge thread id":  func(s *Subsystem) error { return s.take(KindThread, 1, maxThreads+1, pack(t, good)) },
		"of no process":     func(s *Subsystem) error { return s.take(KindThread, 0, 1, pack(t, good)) },
		"too few registers": func(s *Subsystem) error { return s.take(KindThread, 1, 1, pack(t, short)) },
		"a torn XSAVE area": func(s *Subsystem) error { return s.take(KindThread, 1, 1, pack(t, torn)) },
		"a 32-bit task":     func(s *Subsystem) error { return s.take(KindThread, 1, 1, pack(t, compat)) },
		"unknown kind":      func(s *Subsystem) error { return s.take(9, 1, 1, nil) },
		"several of thread 0": func(s *Subsystem) error {
			return s.take(KindThreads, 1, 1, pack(t, &state.ThreadsCPU{Thread: []*state.ThreadCPU{good}}))
		},
		"several with a torn one": func(s *Subsystem) error {
			a, b := proto.Clone(good).(*state.ThreadCPU), proto.Clone(torn).(*state.ThreadCPU)
			a.Tid, b.Tid = 1, 2
			return s.take(KindThreads, 1, 1, pack(t, &state.ThreadsCPU{Thread: []*state.ThreadCPU{a, b}}))
		},
		"no protobuf": func(s *Subsystem) error { return s.take(KindThread, 1, 1, []byte{0xff}) },
		"overlapping layout": func(s *Subsystem) error {
			m := layout()
			m.Component = append(m.Component, m.Component...)
			return s.take(KindLayout, 0, 0, pack(t, m))
		},
		"a layout beyond all": func(s *Subsystem) error {
			m := layout()
			m.Component[0].Size = 1 << 31
			return s.take(KindLayout, 0, 0, pack(t, m))
		},
	} {
		s := New(target.Env{})
		if err := s.take(KindLayout, 0, 0, pack(t, layout())); err != nil {
			t.Fatal(err)
		}
		if feed(s) == nil {
			t.Errorf("%s passes", what)
		}
	}
}

// TestNoRestartOfTheKernels: the registers carry a finished fix-up; the kernel
// must not apply its own.
func TestNoRestartOfTheKernels(t *testing.T) {
	s := New(target.Env{})
	err := errors.Join(s.take(KindLayout, 0, 0, pack(t, layout())), s.take(KindThread, 1, 7, pack(t, thread(t, func(*amd64.Registers) {}))))
	if err != nil {
		t.Fatal(err)
	}
	if r := s.kept[1][7].registers; r.OrigRax != amd64.NoSyscall || r.Rax != 5 {
		t.Errorf("%+v", r)
	}
}

// FuzzReceive: hostile records give an error or an area in the host's size.
func FuzzReceive(f *testing.F) {
	f.Add(pack(f, layout()), pack(f, thread(f, func(*amd64.Registers) {})))
	host := tracer.HostXSave()
	f.Fuzz(func(t *testing.T, layout, thread []byte) {
		s := New(target.Env{})
		if s.take(KindLayout, 0, 0, layout) != nil || s.take(KindThread, 1, 1, thread) != nil {
			return
		}
		if n := len(s.kept[1][1].xsave); n > int(host.Size(host.Features)) {
			t.Fatalf("an area of %d bytes", n)
		}
	})
}

// TestSleepIsOver: a sleep that has passed returns, another is begun anew.
func TestSleepIsOver(t *testing.T) {
	const call, sleep, stopped = 0x1000, 5_000_000, 70_000_000
	for now, over := range map[int64]bool{stopped - 1: false, stopped: false, stopped + sleep - 1: false, stopped + sleep: true} {
		k := &saved{registers: amd64.Registers{Rip: call, Rax: 35}, sleep: sleep, stopped: stopped}
		k.endSleep(now)
		if got := k.registers.Rip == call+2 && k.registers.Rax == 0; got != over || !over && (k.registers.Rip != call || k.registers.Rax != 35) {
			t.Errorf("%d ns after the stop: rip %#x, rax %d", now-stopped, k.registers.Rip, k.registers.Rax)
		}
	}
	k := &saved{registers: amd64.Registers{Rip: call, Rax: 35}}
	if k.endSleep(stopped + sleep); k.registers.Rip != call {
		t.Error("a thread in no sleep goes on elsewhere")
	}
}
