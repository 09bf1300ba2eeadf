// SPDX-License-Identifier: Apache-2.0

package castagnoli

import (
	"fmt"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestLikeStandard compares with hash/crc32: lengths around every boundary, any
// start and any checksum before.
func TestLikeStandard(t *testing.T) {
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	check := func(start, n int, crc uint32) {
		t.Helper()
		p := data[start : start+n]
		if got, want := Update(crc, p), crc32.Update(crc, table, p); got != want {
			t.Fatalf("%d bytes at %d behind %#x: %#x, not %#x", n, start, crc, got, want)
		}
	}
	for n := range 3*worth + 300 {
		check(n%67, n, random.Uint32())
		check(0, n, 0)
	}
	for range 2000 {
		start := random.IntN(len(data))
		check(start, random.IntN(len(data)-start+1), random.Uint32())
	}
	if !wide {
		t.Log("this processor has no wide polynomial multiplication: only hash/crc32 was compared with itself")
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add(uint32(0), []byte("123456789"), 1)
	f.Add(^uint32(0), []byte{0}, 5000)
	f.Fuzz(func(t *testing.T, crc uint32, p []byte, times int) {
		var long []byte
		for range min(max(times, 0), 1<<12) {
			long = append(long, p...)
		}
		if got, want := Update(crc, long), crc32.Update(crc, table, long); got != want {
			t.Fatalf("%d bytes behind %#x: %#x, not %#x", len(long), crc, got, want)
		}
	})
}

// TestConstants computes what the assembler has.
func TestConstants(t *testing.T) {
	source, err := os.ReadFile("wide_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	for _, distance := range []int{2048, 1536, 1024, 512} {
		for i, n := range []int{distance + 32, distance - 32} {
			found := regexp.MustCompile(fmt.Sprintf(`by%d<>\+%d\(SB\)/8, \$0x([0-9a-f]+)`, distance, 8*i)).FindSubmatch(source)
			if found == nil {
				t.Fatalf("no constant for %d bits", n)
			}
			got, _ := strconv.ParseUint(string(found[1]), 16, 64)
			if want := uint64(bits.Reverse32(power(n))) << 1; got != want {
				t.Errorf("x^%d: %#x, not %#x", n, got, want)
			}
		}
	}
}

// power is x^n modulo the polynomial, whose highest coefficient is the highest bit.
func power(n int) uint32 {
	polynomial := bits.Reverse32(crc32.Castagnoli)
	r := uint32(1)
	for range n {
		carry := r >> 31
		r = r<<1 ^ carry*polynomial
	}
	return r
}

// TestBufferEnds reads nothing behind the buffer: the race detector does not see
// assembler, so the bytes around are changed and must not matter.
func TestBufferEnds(t *testing.T) {
	b := make([]byte, 3*worth)
	p := b[64 : 64+worth+stride+13]
	want := Checksum(p)
	for i := range b {
		if i < 64 || i >= 64+len(p) {
			b[i] = 0xff
		}
	}
	if got := Checksum(p); got != want {
		t.Errorf("bytes around the buffer change its checksum")
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 2 << 20} {
		p := make([]byte, size)
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				Checksum(p)
			}
		})
		b.Run(fmt.Sprintf("%dKiB/standard", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				crc32.Checksum(p, table)
			}
		})
	}
}
