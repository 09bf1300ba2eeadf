// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

func FuzzHeader(f *testing.F) {
	for t := Hello; t <= Compressed; t++ {
		low, _ := limits(t)
		f.Add(AppendHeader(nil, t, low)[:8])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 8 {
			return
		}
		summed := AppendHeader(nil, Type(b[0]), int(uint32(b[4])|uint32(b[5])<<8|uint32(b[6])<<16|uint32(b[7])<<24))
		kind, n, err := DecodeHeader(summed)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			return
		}
		if low, high := limits(kind); n < low || n > high || !bytes.Equal(AppendHeader(nil, kind, n), summed) {
			t.Errorf("%d with %d bytes", kind, n)
		}
	})
}

func TestRefuses(t *testing.T) {
	flipped := AppendHeader(nil, Record, RecordHead)
	flipped[4] ^= 1
	for name, b := range map[string][]byte{
		"short":         AppendHeader(nil, Bye, 0)[:11],
		"flipped":       flipped,
		"unknown":       AppendHeader(nil, 99, 0),
		"huge record":   AppendHeader(nil, Record, RecordHead+record.MaxPayload+1),
		"long manifest": AppendHeader(nil, Manifest, image.MaxManifest+1),
		"http":          []byte("GET / HTTP/1.1\r\n"),
	} {
		if _, _, err := DecodeHeader(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := Greeting{Index: 1, Count: 2, Purpose: Data, Token: NewToken()}
	hello := want.Append(nil)[HeaderSize:]
	if g, err := DecodeHello(hello); err != nil || g != want {
		t.Errorf("hello: %+v, %v", g, err)
	}
	if _, err := DecodeHello(Greeting{Index: 1, Count: 2, Purpose: Urgent}.Append(nil)[HeaderSize:]); !errors.Is(err, ErrProtocol) {
		t.Errorf("two urgent connections: %v", err)
	}
	for _, at := range []int{0, 4, 8, 11, 12, 13, 15} {
		b := bytes.Clone(hello)
		b[at] ^= 0x40
		if _, err := DecodeHello(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("hello with byte %d changed: %v", at, err)
		}
	}
	r := &record.Record{Header: record.Header{Subsystem: "memory", Kind: 1}, Payload: []byte("abc")}
	b := AppendRecord(nil, 7, r)[HeaderSize:]
	if seq, e, err := DecodeRecord(b, RecordHead+3); err != nil || seq != 7 || e.Header != r.Header || e.Length != 3 {
		t.Errorf("record: %d %+v %v", seq, e, err)
	}
	if _, _, err := DecodeRecord(b, RecordHead+4); !errors.Is(err, ErrProtocol) {
		t.Errorf("a record whose length is not its frame's: %v", err)
	}
}

func TestCompressedIsShorter(t *testing.T) {
	r := &record.Record{Header: record.Header{Subsystem: "memory", Kind: 1}, Payload: make([]byte, 100)}
	b := AppendCompressed(nil, 7, r, 10)
	kind, n, err := DecodeHeader(b)
	if err != nil || kind != Compressed {
		t.Fatal(kind, err)
	}
	if seq, e, err := DecodeCompressed(b[HeaderSize:], n); err != nil || seq != 7 || e.Length != 100 {
		t.Errorf("%d %+v %v", seq, e, err)
	}
	if _, _, err := DecodeCompressed(b[HeaderSize:], RecordHead+100); !errors.Is(err, ErrProtocol) {
		t.Errorf("not shorter: %v", err)
	}
}

func TestCommands(t *testing.T) {
	c := record.Command{To: "memory", Verb: "tell", Body: []byte("all")}
	b, err := AppendCommand(nil, 9, c)
	if err != nil {
		t.Fatal(err)
	}
	n, got, err := DecodeCommand(b[HeaderSize:])
	if err != nil || n != 9 || got.To != c.To || got.Verb != c.Verb || !bytes.Equal(got.Body, c.Body) {
		t.Errorf("%d %+v %v", n, got, err)
	}
	for _, bad := range []record.Command{{Verb: "x"}, {To: string(make([]byte, 65))}, {To: "x", Body: make([]byte, MaxBody+1)}} {
		if _, err := AppendCommand(nil, 0, bad); err == nil {
			t.Errorf("%d %d %d was taken", len(bad.To), len(bad.Verb), len(bad.Body))
		}
	}
	for _, at := range []int{8, 9, 10, 11} {
		bad := bytes.Clone(b[HeaderSize:])
		bad[at] ^= 0x40
		if _, _, err := DecodeCommand(bad); !errors.Is(err, ErrProtocol) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	a := AppendAnswer(nil, 9, []byte("yes"), nil)[HeaderSize:]
	if n, body, failed, err := DecodeAnswer(a); err != nil || n != 9 || failed || string(body) != "yes" {
		t.Errorf("%d %q %v %v", n, body, failed, err)
	}
	a = AppendAnswer(nil, 9, nil, errors.New("no"))[HeaderSize:]
	if n, body, failed, err := DecodeAnswer(a); err != nil || n != 9 || !failed || string(body) != "no" {
		t.Errorf("%d %q %v %v", n, body, failed, err)
	}
	p := record.Pull{Subsystem: "memory", Process: 3, Entity: 0x7f0000001000, Length: 65536}
	pull := AppendPull(nil, 11, p)
	kind, size, err := DecodeHeader(pull)
	if err != nil || kind != Pull || size != len(pull)-HeaderSize {
		t.Errorf("%d %d %v", kind, size, err)
	}
	if n, got, err := DecodePull(pull[HeaderSize:]); err != nil || n != 11 || got != p {
		t.Errorf("%d %+v %v", n, got, err)
	}
}

func FuzzBodies(f *testing.F) {
	b, _ := AppendCommand(nil, 1, record.Command{To: "control", Verb: "READY"})
	f.Add(b[HeaderSize:])
	f.Add(AppendPull(nil, 1, record.Pull{Subsystem: "memory"})[HeaderSize:])
	f.Add(Greeting{Count: 1, Purpose: Data}.Append(nil)[HeaderSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, c, err := DecodeCommand(b); err == nil {
			if again, err := AppendCommand(nil, n, c); err != nil || !bytes.Equal(again[HeaderSize:], b) {
				t.Errorf("command %+v: %v", c, err)
			}
		}
		if n, p, err := DecodePull(b); err == nil && !bytes.Equal(AppendPull(nil, n, p)[HeaderSize:], b) {
			t.Errorf("pull %+v", p)
		}
		_, _, _, _ = DecodeAnswer(b)
		_, _ = DecodeHello(b)
		if len(b) >= RecordHead {
			_, _, _ = DecodeRecord(b, len(b))
			_, _, _ = DecodeCompressed(b, len(b))
		}
	})
}
