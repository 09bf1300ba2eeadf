// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/spec/wire"
)

// TestWorth: compression is used exactly where it is faster.
func TestWorth(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		name                  string
		network, speed, ratio float64
		want                  bool
	}{
		{"a slow network, text", 10 * mb, 300 * mb, 0.3, true},
		{"a slow network, noise", 10 * mb, 300 * mb, 1, false},
		{"a fast network, text", 2000 * mb, 300 * mb, 0.3, false},
		{"a middling network, text", 200 * mb, 300 * mb, 0.3, true},
		{"a middling network, little to gain", 200 * mb, 300 * mb, 0.8, false},
		{"nothing is known", 0, 0, 0, false},
	} {
		c := compressor{network: test.network, speed: test.speed, ratio: test.ratio}
		if got, _ := c.worth(); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	c := compressor{network: 2000 * mb, speed: 300 * mb, ratio: 0.3}
	probes := 0
	for range 10 * probeEvery {
		worth, probe := c.worth()
		if probe {
			probes++
		}
		if worth {
			t.Error("a record was compressed for a fast network")
		}
	}
	if probes != 10 {
		t.Errorf("%d probes among %d records", probes, 10*probeEvery)
	}
	for name, want := range map[string]Compression{"": CompressAuto, "auto": CompressAuto, "zstd": CompressAlways, "none": CompressNever} {
		if got, err := ParseCompression(name); got != want || err != nil {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	if _, err := ParseCompression("lz4"); err == nil {
		t.Error("lz4 was taken")
	}
}

// TestAdapts: over a slow connection what can be compressed is.
func TestAdapts(t *testing.T) {
	c := compressor{}
	payload := bytes.Repeat([]byte("all work and no play "), 10_000)
	packedOnce := false
	for range 10 {
		packed, done := c.pack(payload)
		n := len(payload)
		if packed != nil {
			packedOnce, n = true, len(packed)
		}
		done()
		c.wrote(max(n, minTimed), time.Duration(n)*10*time.Microsecond) // 100 kB/s
	}
	if packed, done := c.pack(payload); packed == nil || !packedOnce || len(packed) > len(payload)/10 {
		t.Errorf("%d bytes became %d", len(payload), len(packed))
	} else {
		done()
	}
	for range 20 {
		c.wrote(1<<30, time.Millisecond) // no encoder is as fast
	}
	if packed, _ := c.pack(payload); packed != nil {
		t.Error("a fast network is held up")
	}
	noise := mediumtest.Payload(1, 100_000)
	always := compressor{policy: CompressAlways}
	if packed, _ := always.pack(noise); packed != nil {
		t.Error("what gets longer was kept")
	}
}

// TestHostileZstd: a frame that gives more, less or nothing is refused within
// the length that was announced.
func TestHostileZstd(t *testing.T) {
	c := compressor{policy: CompressAlways}
	packed, _ := c.pack(make([]byte, 1<<20))
	var u unpacker
	defer u.close()
	if err := u.unpack(packed, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1<<20 - 1, 1<<20 + 1, 10} {
		if err := u.unpack(packed, make([]byte, n)); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%d: %v", n, err)
		}
	}
	for _, b := range [][]byte{nil, []byte("garbage"), packed[:len(packed)-1]} {
		if err := u.unpack(b, make([]byte, 1<<20)); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("% x: %v", b, err)
		}
	}
}
