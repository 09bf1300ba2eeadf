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
	for t := Hello; t <= Failure; t++ {
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
	hello := AppendHello(nil, 1, 2)[HeaderSize:]
	if i, n, err := DecodeHello(hello); err != nil || i != 1 || n != 2 {
		t.Errorf("hello: %d of %d, %v", i, n, err)
	}
	for _, at := range []int{0, 4, 8, 11, 12} {
		b := bytes.Clone(hello)
		b[at] ^= 0x40
		if _, _, err := DecodeHello(b); !errors.Is(err, ErrProtocol) {
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
