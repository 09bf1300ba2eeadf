// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// writer changes checksummed files all the time, in every way that programs do,
// until it is paused: between two changes each file is whole.
type writer struct {
	t    *testing.T
	dir  string
	rand *rand.Rand
	maps map[string][]byte

	pause sync.Mutex
	stop  chan struct{}
	done  chan struct{}
}

const writerFiles = 24

func startWriter(t *testing.T, dir string, seed uint64) *writer {
	w := &writer{t: t, dir: dir, rand: rand.New(rand.NewPCG(seed, 0)), maps: map[string][]byte{}, stop: make(chan struct{}), done: make(chan struct{})}
	must(t, os.MkdirAll(dir+"/a/b", 0o755))
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			w.pause.Lock()
			err := w.change()
			w.pause.Unlock()
			if err != nil {
				t.Errorf("the writer: %v", err)
				return
			}
		}
	}()
	t.Cleanup(w.end)
	return w
}

func (w *writer) end() {
	select {
	case <-w.stop:
		return
	default:
		close(w.stop)
	}
	<-w.done
	for _, m := range w.maps {
		_ = unix.Munmap(m)
	}
}

// content is a body with its length and checksum in front.
func (w *writer) content() []byte {
	n := w.rand.IntN(200)
	if w.rand.IntN(8) == 0 {
		n = w.rand.IntN(300_000)
	}
	b := make([]byte, 8+n)
	v := byte(w.rand.Uint32())
	for i := 8; i < len(b); i++ {
		if v += 7; i%50_000 > 20_000 { // and stretches of zeros
			b[i] = v
		}
	}
	binary.LittleEndian.PutUint32(b, uint32(n))
	binary.LittleEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[8:]))
	return b
}

// whole tells a torn file from a whole one.
func whole(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) < 8 {
		return fmt.Errorf("%d bytes", len(b))
	}
	n := int(binary.LittleEndian.Uint32(b))
	if len(b) < 8+n || crc32.ChecksumIEEE(b[8:8+n]) != binary.LittleEndian.Uint32(b[4:]) {
		return fmt.Errorf("%d bytes, of which %d should have another checksum", len(b), n)
	}
	return nil
}

func (w *writer) name() string {
	return filepath.Join(w.dir, [...]string{"", "a", "a/b"}[w.rand.IntN(3)], fmt.Sprint("f", w.rand.IntN(writerFiles)))
}

func (w *writer) change() error {
	name, b := w.name(), w.content()
	if m := w.maps[name]; m != nil {
		// A mapped file is written to by its mapping alone.
		if len(b) <= len(m) {
			copy(m, b)
		}
		return nil
	}
	switch w.rand.IntN(8) {
	case 0: // as editors and databases do
		if err := os.WriteFile(name+".new", b, 0o644); err != nil {
			return err
		}
		return os.Rename(name+".new", name)
	case 1:
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	case 2: // a file becomes a link of another one
		other := w.name()
		if w.maps[other] != nil || other == name {
			return nil
		}
		_ = os.Remove(other)
		if err := os.Link(name, other); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	case 3:
		return w.mapFile(name, b)
	case 4:
		other := w.name()
		if w.maps[other] != nil {
			return nil
		}
		if err := os.Rename(name, other); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	default: // in place, in pieces
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		for at := 0; at < len(b); at += 4096 {
			if _, err := f.WriteAt(b[at:min(at+4096, len(b))], int64(at)); err != nil {
				return err
			}
		}
		return f.Truncate(int64(len(b)))
	}
}

// mapFile makes a new file, of one name, that is mapped from now on.
func (w *writer) mapFile(name string, b []byte) error {
	if len(w.maps) >= 4 {
		return nil
	}
	_ = os.Remove(name)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	const size = 400_000
	if err := f.Truncate(size); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m, b)
	w.maps[name] = m
	return nil
}

// mapped is what the kernel would tell of the mappings, as rootfs asks it.
func (w *writer) mapped(ino uint64) bool {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return true
	}
	return bytes.Contains(text, fmt.Appendf(nil, " %d ", ino))
}

// TestNoTornFile: while files change all the time, every pass that is made when
// they rest leaves a tree that is the same, however the passes before went.
func TestNoTornFile(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	for name, place := range map[string]func() (string, ExportOptions){
		"disk":  func() (string, ExportOptions) { return t.TempDir(), ExportOptions{Workers: 2} },
		"tmpfs": func() (string, ExportOptions) { return onTmpfs(t), ExportOptions{Unstamped: true, Workers: 2} },
	} {
		t.Run(name, func(t *testing.T) {
			src, o := place()
			w := startWriter(t, src, 1)
			if name == "disk" {
				o.Mapped = w.mapped
			}
			tr := transferOf(t, src, t.TempDir(), o, everything, false)
			var sent, files uint64
			for round := range rounds {
				if t.Failed() {
					return
				}
				stats := tr.pass(false)
				sent, files = sent+stats.Bytes, files+stats.Files
				w.pause.Lock()
				stats = tr.pass(round == rounds-1)
				sent += stats.Bytes
				tr.same()
				checkWhole(t, tr.dst, round)
				w.pause.Unlock()
			}
			t.Logf("%d rounds, %d files looked at, %d bytes of content", rounds, files, sent)
		})
	}
}

func checkWhole(t *testing.T, dir string, round int) {
	t.Helper()
	for _, d := range []string{"", "/a", "/a/b"} {
		list, err := filepath.Glob(dir + d + "/f*")
		must(t, err)
		for _, name := range list {
			b, err := os.ReadFile(name)
			must(t, err)
			if err := whole(b); err != nil {
				t.Errorf("round %d: %s is torn: %v", round, name, err)
			}
		}
	}
}
