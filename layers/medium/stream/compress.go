// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// Compression is the exporter's policy.
type Compression int

// The policies. A record that does not get shorter is sent as it is.
const (
	// CompressAuto compresses while that is the faster way: see compressor.
	CompressAuto Compression = iota
	CompressNever
	CompressAlways
)

// ParseCompression reads auto, zstd or none; empty means auto.
func ParseCompression(s string) (Compression, error) {
	switch s {
	case "", "auto":
		return CompressAuto, nil
	case "zstd":
		return CompressAlways, nil
	case "none":
		return CompressNever, nil
	}
	return 0, fmt.Errorf("there is no compression %q (there are auto, zstd and none)", s)
}

const (
	// minPacked: a shorter payload is not worth a look, in bytes.
	minPacked = 4 << 10
	// minTimed: shorter writes say nothing about a network, in bytes.
	minTimed = 64 << 10
	// probeEvery is how often a piece of a record is compressed to learn what it
	// would bring, where compression is not worth it: of probeBytes.
	probeEvery = 64
	probeBytes = 128 << 10
)

// compressor decides record by record. It compares, for one connection, the
// time that a payload takes as it is with that of compressing it and sending
// what is left:
//
//	n/network  >  n/speed + n*ratio/network
//
// network is measured by how long writes take: as long as the socket's buffer
// takes everything that is memory's speed, and compression never pays.
type compressor struct {
	policy Compression
	once   sync.Once
	enc    *zstd.Encoder
	packs  sync.Pool // of *[]byte

	mu sync.Mutex
	// Below: guarded by mu. Means that forget, 0 while unknown.
	network float64 // bytes a second of one connection
	speed   float64 // bytes a second that go into the encoder
	ratio   float64 // bytes out of it for each byte in
	since   int     // records since the last compression
}

// pack returns the compressed payload, or nil where it is to be sent as it is.
// done must be called when the result is not needed any more.
func (c *compressor) pack(payload []byte) (packed []byte, done func()) {
	if c.policy == CompressNever || len(payload) < minPacked {
		return nil, func() {}
	}
	worth, probe := c.worth()
	if !worth && !probe {
		return nil, func() {}
	}
	c.once.Do(func() {
		// Options within the package's limits: no error.
		c.enc, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	})
	buf, _ := c.packs.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	whole := payload
	if !worth {
		payload = payload[:min(len(payload), probeBytes)]
	}
	start := time.Now()
	*buf = c.enc.EncodeAll(payload, (*buf)[:0])
	c.learn(len(payload), len(*buf), time.Since(start))
	if len(payload) < len(whole) || len(*buf) >= len(payload) {
		c.packs.Put(buf)
		return nil, func() {}
	}
	return *buf, func() { c.packs.Put(buf) }
}

// worth says whether the next record is to be compressed, or only some of it to
// learn what that would bring.
func (c *compressor) worth() (worth, probe bool) {
	if c.policy == CompressAlways {
		return true, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since++
	switch {
	case c.network == 0:
		return false, false
	case c.speed > 0 && 1/c.network > 1/c.speed+c.ratio/c.network:
		return true, false
	case c.speed == 0, c.since >= probeEvery:
		c.since = 0
		return false, true
	}
	return false, false
}

// learn notes a compression.
func (c *compressor) learn(in, out int, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mean(&c.speed, float64(in)/max(d.Seconds(), 1e-9))
	mean(&c.ratio, float64(out)/float64(in))
}

// wrote notes how long a write of n bytes took.
func (c *compressor) wrote(n int, d time.Duration) {
	if n < minTimed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	mean(&c.network, float64(n)/max(d.Seconds(), 1e-9))
}

// mean moves a mean a quarter of the way.
func mean(m *float64, v float64) {
	if *m == 0 {
		*m = v
		return
	}
	*m += (v - *m) / 4
}

// unpacker decompresses records. The zero value is ready.
type unpacker struct {
	once sync.Once
	dec  *zstd.Decoder
}

// unpack decompresses into buf, which has exactly the length that the record's
// header names.
func (u *unpacker) unpack(packed, buf []byte) error {
	u.once.Do(func() {
		// A capacity that is reached ends the decoding, whatever the frame says.
		u.dec, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(2*record.MaxPayload), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(record.MaxPayload))
	})
	out, err := u.dec.DecodeAll(packed, buf[:0:len(buf)])
	if err == nil && len(out) != len(buf) {
		err = fmt.Errorf("%d bytes instead of %d", len(out), len(buf))
	}
	if err != nil {
		return fmt.Errorf("%w: compressed record: %w", wire.ErrProtocol, err)
	}
	return nil
}

func (u *unpacker) close() {
	if u.dec != nil {
		u.dec.Close()
	}
}
