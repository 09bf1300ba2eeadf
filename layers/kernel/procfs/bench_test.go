// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// manyMaps is a large address space: 60,000 mappings, of which every third
// has a file, in runs as a loader makes them.
func manyMaps(tail string) []byte {
	var b strings.Builder
	for i := range 60000 {
		start := uint64(0x7f0000000000) + uint64(i)*0x2000
		fmt.Fprintf(&b, "%x-%x rw-p 00000000 ", start, start+0x1000)
		if i%3 == 0 {
			fmt.Fprintf(&b, "fe:00 %d                      /usr/lib/libexample-%d.so\n", 100+i/30, i/30)
		} else {
			b.WriteString("00:00 0 \n")
		}
		b.WriteString(tail)
	}
	return []byte(b.String())
}

func bench[T any](b *testing.B, data []byte, parse func([]byte) (T, error)) {
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseMaps60k(b *testing.B) { bench(b, manyMaps(""), ParseMaps) }

func BenchmarkParseSmaps60k(b *testing.B) {
	entry := string(golden(b, "smaps"))
	_, entry, _ = strings.Cut(entry, "\n")
	entry, _, _ = strings.Cut(entry, "ffffffff")
	entry = strings.Replace(entry, "NewCounter:           17 kB\n", "", 1)
	entry = strings.Replace(entry, " zz", "", 1)
	bench(b, manyMaps(entry), ParseSmaps)
}

func BenchmarkParseStat(b *testing.B)   { bench(b, golden(b, "stat"), ParseStat) }
func BenchmarkParseStatus(b *testing.B) { bench(b, golden(b, "status"), ParseStatus) }
func BenchmarkParseFDInfo(b *testing.B) { bench(b, golden(b, "fdinfo/regular"), ParseFDInfo) }

// The rest measures the whole way, system calls included.

func BenchmarkHostStat(b *testing.B) {
	p := Host().Process(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		must(p.Stat())(b)
	}
}

func BenchmarkHostStatus(b *testing.B) {
	p := Host().Process(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		must(p.Status())(b)
	}
}

func BenchmarkHostMaps(b *testing.B) {
	p := Host().Process(os.Getpid())
	var maps []Mapping
	b.ReportAllocs()
	for b.Loop() {
		maps = must(p.AppendMaps(maps[:0]))(b)
	}
}

func BenchmarkHostFDInfo(b *testing.B) {
	p := Host().Process(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		must(p.FDInfo(0))(b)
	}
}

func BenchmarkHostFDLink(b *testing.B) {
	p := Host().Process(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		must(p.FDLink(0))(b)
	}
}
