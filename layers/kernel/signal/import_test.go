// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"encoding/binary"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
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

func info(signo uint32) []byte {
	b := make([]byte, infoSize)
	binary.LittleEndian.PutUint32(b, signo)
	return b
}

func receive(kind uint32, process record.ProcessID, payload []byte) (*Subsystem, error) {
	s := New(target.Env{})
	return s, s.receive(&record.Record{Header: record.Header{Subsystem: Name, Process: process, Kind: kind}, Payload: payload})
}

// TestHostileSignals: what no process can have is refused at once.
func TestHostileSignals(t *testing.T) {
	for what, m := range map[string]*state.ProcessSignals{
		"action of signal 0":  {Action: []*state.SignalAction{{Signal: 0}}},
		"action of signal 65": {Action: []*state.SignalAction{{Signal: 65}}},
		"short siginfo":       {Pending: [][]byte{make([]byte, 127)}},
		"pending signal 0":    {Pending: [][]byte{info(0)}},
		"pending SIGKILL":     {Pending: [][]byte{info(9)}},
		"pending SIGSTOP":     {Pending: [][]byte{info(19)}},
		"pending signal 65":   {Pending: [][]byte{info(65)}},
	} {
		if _, err := receive(KindProcess, 1, pack(t, m)); !errors.Is(err, errImage) {
			t.Errorf("%s: %v", what, err)
		}
		if len(m.Pending) == 0 {
			continue
		}
		threads := &state.ThreadSignals{Thread: []*state.ThreadSignal{{Tid: 1, Pending: m.Pending}}}
		if _, err := receive(KindThreads, 1, pack(t, threads)); !errors.Is(err, errImage) {
			t.Errorf("%s of a thread: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"shared":       second(receive(KindProcess, 0, nil)),
		"unknown kind": second(receive(9, 1, nil)),
		"no protobuf":  second(receive(KindProcess, 1, []byte{0xff})),
	} {
		if !errors.Is(err, errImage) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second(_ *Subsystem, err error) error { return err }

// TestDecodeActions leaves out what is default and nothing else.
func TestDecodeActions(t *testing.T) {
	b := make([]byte, signals*actionSize)
	binary.LittleEndian.PutUint64(b[actionSize*4:], 1)      // SIGTRAP ignored
	binary.LittleEndian.PutUint64(b[actionSize*16+8:], 2)   // SIGCHLD: only flags
	binary.LittleEndian.PutUint64(b[actionSize*63+24:], 64) // 64: only a mask
	got := decodeActions(b)
	if len(got) != 3 || got[0].Signal != 5 || got[0].Handler != 1 || got[1].Signal != 17 || got[1].Flags != 2 || got[2].Signal != 64 || got[2].Mask != 64 {
		t.Errorf("%v", got)
	}
}

// FuzzReceive: hostile records give an error or signals that exist.
func FuzzReceive(f *testing.F) {
	f.Add(uint32(KindProcess), pack(f, &state.ProcessSignals{Action: []*state.SignalAction{{Signal: 5, Handler: 1}}, Pending: [][]byte{info(10)}}))
	f.Add(uint32(KindThreads), pack(f, &state.ThreadSignals{Thread: []*state.ThreadSignal{{Tid: 1, Pending: [][]byte{info(34)}}}}))
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		s, err := receive(kind, 1, payload)
		if err != nil {
			return
		}
		k := s.kept[1]
		if k.process == nil {
			k.process = &state.ProcessSignals{}
		}
		if k.pending()&(1<<8|1<<18) != 0 {
			t.Fatal("SIGKILL or SIGSTOP pending")
		}
	})
}
