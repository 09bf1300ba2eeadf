// SPDX-License-Identifier: Apache-2.0

package pipe

import (
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

func two() []*state.PipeEnd {
	return []*state.PipeEnd{{Description: 1, Flags: unix.O_RDONLY}, {Description: 2, Flags: unix.O_WRONLY}}
}

func TestHostilePipesAreRefused(t *testing.T) {
	for name, m := range map[string]*state.Pipe{
		"no end":         {Capacity: 4096},
		"capacity":       {Capacity: maxCapacity + 1, End: two()},
		"description 0":  {End: []*state.PipeEnd{{}}},
		"an end twice":   {End: append(two(), two()...)},
		"access mode":    {End: []*state.PipeEnd{{Description: 1, Flags: 3}}},
		"unknown flags":  {End: []*state.PipeEnd{{Description: 1, Flags: unix.O_CREAT}}},
		"standard error": {End: two(), OpenedElsewhere: true, Stdio: 3},
		"made stdin":     {End: two(), Stdio: 1},
		"abandoned FIFO": {End: two(), Abandoned: true, OpenedElsewhere: true},
	} {
		if _, err := decodePipe(encode(t, KindPipe, 1, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := decodePipe(encode(t, KindPipe, 1, &state.Pipe{Capacity: 65536, End: two()})); err != nil {
		t.Errorf("a pipe as the export describes it: %v", err)
	}
}

func TestHostileContentIsRefused(t *testing.T) {
	s := New(target.Env{})
	if err := s.receive(encode(t, KindPipe, 1, &state.Pipe{Capacity: 8192, End: two()})); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*record.Record{
		"of no pipe":       encode(t, KindContent, 2<<idShift, &state.PipeContent{Pipe: 2, Stream: []byte("x")}),
		"another entity":   encode(t, KindContent, 2<<idShift, &state.PipeContent{Pipe: 1, Stream: []byte("x")}),
		"too much":         encode(t, KindContent, 1<<idShift, &state.PipeContent{Pipe: 1, Stream: make([]byte, 8193)}),
		"too many packets": encode(t, KindContent, 1<<idShift, &state.PipeContent{Pipe: 1, Packet: [][]byte{{1}, {2}, {3}}}),
		"empty packet":     encode(t, KindContent, 1<<idShift, &state.PipeContent{Pipe: 1, Packet: [][]byte{{}}}),
		"long packet":      encode(t, KindContent, 1<<idShift, &state.PipeContent{Pipe: 1, Packet: [][]byte{make([]byte, 4097)}}),
		"of both kinds":    encode(t, KindContent, 1<<idShift, &state.PipeContent{Pipe: 1, Packet: [][]byte{{1}}, Stream: []byte("x")}),
		"the pipe again":   encode(t, KindPipe, 1, &state.Pipe{Capacity: 8192, End: two()}),
		"unknown kind":     encode(t, 9, 1, &state.Pipe{}),
	} {
		if err := s.receive(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(s.in[1].stream)+len(s.in[1].packets) != 0 {
		t.Error("refused content was kept")
	}
}

func TestEndsArePairedByInode(t *testing.T) {
	pipeFD := func(fd, flags int, ino uint64) *target.Descriptor {
		d := &target.Descriptor{FD: fd, Flags: flags, Stdio: -1, Link: procfs.FDLink{Kind: procfs.FDPipe, Inode: ino}}
		d.Stat.Mode, d.Stat.Ino = unix.S_IFIFO, ino
		return d
	}
	var gs groups
	stdout := pipeFD(1, unix.O_WRONLY, 5)
	stdout.Stdio = 1
	stdin := pipeFD(0, unix.O_RDONLY, 6)
	stdin.Stdio = 0
	for _, d := range []*target.Descriptor{
		stdin, stdout, pipeFD(3, unix.O_RDONLY, 7), pipeFD(4, unix.O_WRONLY|unix.O_DIRECT, 7), pipeFD(5, unix.O_WRONLY, 8),
		{FD: 6, Stdio: -1, Link: procfs.FDLink{Kind: procfs.FDEventfd}},
	} {
		gs.add(end{d: d})
	}
	if len(gs.list) != 3 {
		t.Fatalf("%d pipes, want standard input, a whole one and half of one", len(gs.list))
	}
	in, whole, half := gs.list[0], gs.list[1], gs.list[2]
	if !in.stdin || whole.reader() == nil || whole.writer() == nil || !whole.packets() || half.reader() != nil {
		t.Errorf("stdin %+v, whole %+v, half %+v", in, whole, half)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(encode(f, KindPipe, 1, &state.Pipe{Capacity: 65536, End: two()}).Payload, encode(f, KindContent, 1<<idShift, &state.PipeContent{Pipe: 1, Stream: []byte("x")}).Payload)
	f.Fuzz(func(t *testing.T, pipe, content []byte) {
		s := New(target.Env{})
		_ = s.receive(&record.Record{Header: record.Header{Kind: KindPipe, Entity: 1}, Payload: pipe})
		_ = s.receive(&record.Record{Header: record.Header{Kind: KindContent, Entity: 1 << idShift}, Payload: content})
		for id, a := range s.in {
			if len(a.stream) > int(a.msg.Capacity) || len(a.packets)*maxPacket > int(a.msg.Capacity) {
				t.Fatalf("pipe %d holds more than its capacity", id)
			}
		}
	})
}
