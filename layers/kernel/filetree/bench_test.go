// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// manyFiles makes n small files in directories of a hundred, and a sparse one
// of two gigabytes.
func manyFiles(t testing.TB, dir string, n int) {
	t.Helper()
	for i := range n {
		d := fmt.Sprintf("%s/dir%03d", dir, i/100)
		if i%100 == 0 {
			must(t, os.Mkdir(d, 0o755))
		}
		write(t, fmt.Sprintf("%s/file%05d", d, i), fmt.Sprintf("the content of file %d", i))
	}
	f, err := os.Create(dir + "/sparse")
	must(t, err)
	must(t, f.Truncate(2<<30))
	for at := int64(0); at < 2<<30; at += 64 << 20 {
		_, err := f.WriteAt([]byte("data"), at)
		must(t, err)
	}
	must(t, f.Close())
}

// TestManyFiles bounds what a large tree costs: time, memory and what is sent.
func TestManyFiles(t *testing.T) {
	const files = 10_000
	tr := newTransfer(t, ExportOptions{Workers: 2}, Policy{}, false)
	manyFiles(t, tr.src, files)
	age(t, tr.src)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begun := time.Now()
	stats := tr.pass(false)
	took := time.Since(begun)
	tr.last = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	begun = time.Now()
	again := tr.pass(true)
	last := time.Since(begun)
	kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d files: first pass with import %s, last pass without changes %s, %d bytes of content, %d bytes remembered per file",
		stats.Files, took, last, stats.Bytes, kept/int64(stats.Files))
	if stats.Files < files || again.Files != stats.Files || again.Sent != 1 {
		t.Errorf("looked at %d and %d files, sent %d items in the last pass", stats.Files, again.Files, again.Sent)
	}
	if stats.Bytes > 4<<20 || kept > 16<<20 {
		t.Errorf("%d bytes of content, %d bytes of memory", stats.Bytes, kept)
	}
}

// BenchmarkLastPass is what a container's stop waits for when nothing has
// changed.
func BenchmarkLastPass(b *testing.B) {
	for _, files := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) {
			dir := b.TempDir()
			manyFiles(b, dir, files)
			age(b, dir)
			e := NewExporter(openDir(b, dir), ExportOptions{Workers: 2})
			batch := &Batch{Push: func([]byte) error { return nil }}
			_, err := e.Pass(b.Context(), false, batch.Add)
			must(b, err)
			for b.Loop() {
				stats, err := e.Pass(b.Context(), true, batch.Add)
				must(b, err)
				if stats.Sent != 1 {
					b.Fatalf("sent %d items", stats.Sent)
				}
			}
		})
	}
}

// BenchmarkUnstamped is what a tmpfs of 16 MB costs in each pass.
func BenchmarkUnstamped(b *testing.B) {
	dir := b.TempDir()
	const size = 16 << 20
	text := make([]byte, size)
	for i := range text {
		text[i] = byte(i * 7)
	}
	must(b, os.WriteFile(dir+"/big", text, 0o644))
	b.SetBytes(size)
	e := NewExporter(openDir(b, dir), ExportOptions{Unstamped: true, Workers: 2})
	batch := &Batch{Push: func([]byte) error { return nil }}
	_, err := e.Pass(b.Context(), false, batch.Add)
	must(b, err)
	for b.Loop() {
		_, err := e.Pass(b.Context(), true, batch.Add)
		must(b, err)
	}
}
