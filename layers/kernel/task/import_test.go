// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
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

func (s *Subsystem) take(kind uint32, process record.ProcessID, payload []byte) error {
	return s.receive(&record.Record{Header: record.Header{Subsystem: Name, Process: process, Kind: kind}, Payload: payload})
}

// withTree is an import whose processes exist.
func withTree() *Subsystem {
	s := New(target.Env{})
	s.grown = true
	return s
}

// TestTreeComesFirst: without it nobody knows whose records these are.
func TestTreeComesFirst(t *testing.T) {
	s := New(target.Env{})
	if err := s.take(KindProcess, 1, pack(t, &state.Process{Pid: 1, Threads: 1})); !errors.Is(err, errImage) {
		t.Errorf("a process before the tree: %v", err)
	}
	if _, err := s.Restart(t.Context(), record.Step{Stage: record.StageBuild}, nil); !errors.Is(err, errImage) {
		t.Errorf("no tree at all: %v", err)
	}
	if _, err := withTree().Restart(t.Context(), record.Step{Stage: record.StageBuild}, nil); err != nil {
		t.Error(err)
	}
}

// TestHostileTasks: what cannot be is refused at once.
func TestHostileTasks(t *testing.T) {
	process := pack(t, &state.Process{Pid: 1, Threads: 1})
	one := pack(t, &state.Threads{Thread: []*state.Thread{{Tid: 1}}})
	for what, feed := range map[string]func(*Subsystem) error{
		"no threads": func(s *Subsystem) error { return s.take(KindProcess, 1, pack(t, &state.Process{Pid: 1})) },
		"too many threads": func(s *Subsystem) error {
			return s.take(KindProcess, 1, pack(t, &state.Process{Threads: maxThreads + 1}))
		},
		"threads too early": func(s *Subsystem) error { return s.take(KindThreads, 1, one) },
		"more than announced": func(s *Subsystem) error {
			return errors.Join(s.take(KindProcess, 1, process), s.take(KindThreads, 1, one), s.take(KindThreads, 1, one))
		},
		"thread 0": func(s *Subsystem) error {
			return errors.Join(s.take(KindProcess, 1, process), s.take(KindThreads, 1, pack(t, &state.Threads{Thread: []*state.Thread{{}}})))
		},
		"a long name": func(s *Subsystem) error {
			return errors.Join(s.take(KindProcess, 1, process), s.take(KindThreads, 1, pack(t, &state.Threads{Thread: []*state.Thread{{Tid: 1, Comm: make([]byte, 16)}}})))
		},
		"shared":       func(s *Subsystem) error { return s.take(KindProcess, 0, process) },
		"unknown kind": func(s *Subsystem) error { return s.take(9, 1, nil) },
		"no protobuf":  func(s *Subsystem) error { return s.take(KindProcess, 1, []byte{0xff}) },
	} {
		if err := feed(withTree()); !errors.Is(err, errImage) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestCheck compares the frame with what it is to be.
func TestCheck(t *testing.T) {
	frame := &target.Task{Traced: &tracer.Process{NSPid: 1}}
	image := func(pid int32, tids ...int32) *saved {
		k := &saved{process: &state.Process{Pid: pid, Threads: uint32(len(tids))}}
		for _, tid := range tids {
			k.threads = append(k.threads, &state.Thread{Tid: tid})
		}
		return k
	}
	if err := check(frame, image(1, 1, 7, 5)); err != nil {
		t.Error(err)
	}
	for what, k := range map[string]*saved{"another pid": image(2, 2), "another leader": image(1, 2, 1), "twice": image(1, 1, 7, 7)} {
		if check(frame, k) == nil {
			t.Errorf("%s passes", what)
		}
	}
}

// FuzzReceive: hostile records give an error or threads within the limits.
func FuzzReceive(f *testing.F) {
	f.Add(pack(f, &state.Process{Pid: 1, Threads: 2}), pack(f, &state.Threads{Thread: []*state.Thread{{Tid: 1, Comm: []byte("x")}, {Tid: 2}}}))
	f.Fuzz(func(t *testing.T, process, threads []byte) {
		s := withTree()
		if s.take(KindProcess, 1, process) != nil || s.take(KindThreads, 1, threads) != nil {
			return
		}
		k := s.kept[1]
		if len(k.threads) > int(k.process.Threads) {
			t.Fatalf("%d threads of %d", len(k.threads), k.process.Threads)
		}
		for _, th := range k.threads {
			own(th, 4096)
		}
		for _, c := range ownOfProcess(k.process) {
			if c.Nr == 135 && c.Args[0]&^personalities != 0 { // personality(2)
				t.Fatalf("personality %#x", c.Args[0])
			}
		}
	})
}

// TestHostileSettings likewise.
func TestHostileSettings(t *testing.T) {
	for what, m := range map[string]*state.Settings{
		"thread 0":             {Thread: []*state.ThreadSettings{{}}},
		"twice":                {Thread: []*state.ThreadSettings{{Tid: 1}, {Tid: 1}}},
		"too many CPUs":        {Thread: []*state.ThreadSettings{{Tid: 1, Affinity: make([]byte, cpuBytes+1)}}},
		"too many nodes":       {Thread: []*state.ThreadSettings{{Tid: 1, MemoryNodes: make([]byte, nodeBytes+1)}}},
		"too many features":    {Thread: []*state.ThreadSettings{{Tid: 1, Speculation: make([]uint32, speculations+1)}}},
		"machine check":        {Thread: []*state.ThreadSettings{{Tid: 1, MachineCheck: mceDefault + 1}}},
		"a membarrier command": {Process: &state.ProcessSettings{Membarrier: 1 << 3}},
	} {
		if err := withTree().take(KindSettings, 1, pack(t, m)); !errors.Is(err, errImage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := withTree()
	twice := pack(t, &state.Settings{Process: &state.ProcessSettings{}})
	if err := s.take(KindSettings, 1, twice); err != nil {
		t.Error(err)
	}
	if err := s.take(KindSettings, 1, twice); !errors.Is(err, errImage) {
		t.Errorf("settings of the process twice: %v", err)
	}
}
