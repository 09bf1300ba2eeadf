// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"testing"
)

// TestSummer: a checksum in pieces is the record's, and Seal and Verify believe
// it.
func TestSummer(t *testing.T) {
	r := Record{Header: Header{Subsystem: "memory", Process: 3, Entity: 7, Kind: 2}, Payload: []byte("one piece after the other")}
	if err := r.Seal(); err != nil {
		t.Fatal(err)
	}
	s := r.Summer(len(r.Payload))
	s.Add(r.Payload[:4])
	s.Add(r.Payload[4:])
	again := Record{Header: r.Header, Payload: r.Payload}
	again.Summed(s)
	if err := again.Seal(); err != nil || again.Sum != r.Sum {
		t.Errorf("%08x instead of %08x, %v", again.Sum, r.Sum, err)
	}
	again.Sum++
	var damage *ChecksumError
	if err := again.Verify(); !errors.As(err, &damage) {
		t.Errorf("another checksum: %v", err)
	}
}
