// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// golden makes a valid image of a victim and proves that it can be restored, so
// that what fails later fails for the reason that the test names.
func golden(t *testing.T, h *host) string {
	t.Helper()
	v := h.run(t, "golden", 4, "")
	dir := filepath.Join(t.TempDir(), "golden")
	if err := v.checkpoint(dir).Err(); err != nil {
		t.Fatal(err)
	}
	v.runsOn("a checkpoint")
	v.remove()
	copied, err := h.restore(t, "copy", dir)
	if err != nil {
		t.Fatal(err)
	}
	copied.mustLive("after a restore")
	copied.remove()
	return dir
}

// limits of a restore that is refused.
const (
	// maxShim is what the shim may have used at most, whatever an image says.
	maxShim = 64 << 20
	// maxEngine likewise: the engine is a Go program with a few buffers.
	maxEngine = 160 << 20
	// maxRefusal is how long it may take.
	maxRefusal = 20 * time.Second
)

// restoreRefused asserts that an image is refused with a text that fits, within
// the limits, and that nothing is left of it.
func restoreRefused(t *testing.T, h *host, dir, want string, opts ...oci.SpecOpts) {
	t.Helper()
	v := &victim{t: t, host: h, id: "hostile"}
	begin := time.Now()
	err := v.make(4, "", dir, opts...)
	if err == nil {
		shim := v.shim()
		quit, engine := watchEngine(shim)
		err = v.start()
		close(quit)
		if used := peak(shim); used > maxShim {
			t.Errorf("the shim has used %d MB", used>>20)
		}
		if used := <-engine; used > maxEngine {
			t.Errorf("the engine has used %d MB", used>>20)
		}
	}
	if took := time.Since(begin); took > maxRefusal {
		t.Errorf("it took %v", took)
	}
	if err == nil {
		t.Errorf("the image was restored, and the container %v", harmed(v))
	} else if !regexp.MustCompile(want).MatchString(err.Error()) {
		t.Errorf("the error is %q, want %q in it", err, want)
	}
	v.gone("a refused restore")
}

func harmed(v *victim) string {
	if _, err := v.lives(); err != nil {
		return err.Error()
	}
	return "is well"
}

// watchEngine samples the memory of a shim's engine until quit is closed.
func watchEngine(shim int) (quit chan struct{}, most chan uint64) {
	quit, most = make(chan struct{}), make(chan uint64, 1)
	go func() {
		var high uint64
		for {
			if pid := engineOf(shim); pid != 0 {
				high = max(high, peak(pid))
			}
			select {
			case <-quit:
				most <- high
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return quit, most
}

// place is what has to be said of damage: which file, which record, where.
func place(file string, record int) string {
	text := regexp.QuoteMeta(file)
	if record >= 0 {
		text += fmt.Sprintf(`.*record %d\b`, record)
	}
	return `(?s)` + text + `.*offset \d+`
}

// onePerKind picks a record of every kind that an image holds.
func onePerKind(all []entry) (some []entry) {
	seen := map[string]bool{}
	for _, e := range all {
		if !seen[e.key] && e.length > 0 {
			seen[e.key] = true
			some = append(some, e)
		}
	}
	return some
}

func TestDamagedImages(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h)
	all := entries(t, image)
	for _, e := range onePerKind(all) {
		name := strings.ReplaceAll(e.key, "/", "-")
		t.Run("payload-"+name, func(t *testing.T) {
			dir := copyImage(t, image)
			flip(t, dir, e.file, e.payload+e.length/2)
			restoreRefused(t, h, dir, place(e.file, e.number))
		})
		t.Run("header-"+name, func(t *testing.T) {
			dir := copyImage(t, image)
			flip(t, dir, "mig.state", e.header+8)
			restoreRefused(t, h, dir, place("mig.state", e.number))
		})
	}
	for name, damage := range map[string]struct {
		do   func(t *testing.T, dir string)
		want string
	}{
		"cut-in-a-header": {func(t *testing.T, dir string) { cut(t, dir, "mig.state", all[3].header+20) }, place("mig.state", -1)},
		"cut-in-payload":  {func(t *testing.T, dir string) { cut(t, dir, "mig.state", all[1].payload+1) }, place("mig.state", -1)},
		"cut-lane":        {func(t *testing.T, dir string) { cut(t, dir, "mig.pages-1", 8192) }, place("mig.pages-1", -1)},
		"cut-to-nothing":  {func(t *testing.T, dir string) { cut(t, dir, "mig.state", 0) }, `mig\.state`},
		// The manifest agrees with the cut file, so only the stream itself can tell.
		"cut-and-manifest": {func(t *testing.T, dir string) {
			last := all[len(all)-1]
			records, bytes := inline(all)
			manifest(t, dir, stateLine(sizeOf(t, dir, "mig.state"), records, bytes), stateLine(last.header, records-1, bytes-last.length))
			cut(t, dir, "mig.state", last.header)
		}, place("mig.state", len(all)-1)},
		"end-marker": {func(t *testing.T, dir string) { flip(t, dir, "mig.state", sizeOf(t, dir, "mig.state")-60) }, `mig\.state.*offset`},
		"tail": {func(t *testing.T, dir string) {
			patch(t, dir, "mig.state", func(b []byte) []byte { return append(b, 0) })
		}, `mig\.state`},
		"lane-header":     {func(t *testing.T, dir string) { flip(t, dir, "mig.pages-1", 4) }, `mig\.pages-1`},
		"state-header":    {func(t *testing.T, dir string) { flip(t, dir, "mig.state", 9) }, `mig\.state`},
		"manifest-header": {func(t *testing.T, dir string) { flip(t, dir, "mig.manifest", 8) }, `mig\.manifest`},
		"manifest-body":   {func(t *testing.T, dir string) { flip(t, dir, "mig.manifest", 60) }, `mig\.manifest`},
		"manifest-gone":   {func(t *testing.T, dir string) { remove(t, dir, "mig.manifest") }, `no image is there, or an incomplete one`},
		"lane-gone":       {func(t *testing.T, dir string) { remove(t, dir, "mig.pages-1") }, `mig\.pages-1`},
		"other-version":   {otherVersion, `version`},
		"newer-subsystem": {func(t *testing.T, dir string) {
			manifest(t, dir, `{"name":"cpu","version":1}`, `{"name":"cpu","version":9}`)
		}, `cpu.*9|version 9`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyImage(t, image)
			damage.do(t, dir)
			restoreRefused(t, h, dir, damage.want)
		})
	}
	noPanic(t, h)
}

// An image that claims to be larger than it is, or is larger than it should.
func TestOversizedImages(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h)
	all := entries(t, image)
	const huge = 1 << 40
	for name, damage := range map[string]struct {
		do   func(t *testing.T, dir string)
		want string
	}{
		"manifest-size": {func(t *testing.T, dir string) {
			manifest(t, dir, fmt.Sprintf(`"mig.state","size":%d`, sizeOf(t, dir, "mig.state")), fmt.Sprintf(`"mig.state","size":%d`, huge))
		}, `mig\.state`},
		"sparse-state": {func(t *testing.T, dir string) {
			manifest(t, dir, fmt.Sprintf(`"mig.state","size":%d`, sizeOf(t, dir, "mig.state")), fmt.Sprintf(`"mig.state","size":%d`, huge))
			if err := os.Truncate(filepath.Join(dir, "mig.state"), huge); err != nil {
				t.Fatal(err)
			}
		}, `mig\.state`},
		"record-length": {func(t *testing.T, dir string) {
			patch(t, dir, "mig.state", func(b []byte) []byte {
				header := b[all[0].header:][:recordHeader]
				binary.LittleEndian.PutUint32(header[12:], 1<<31)
				seal(header)
				return b
			})
		}, place("mig.state", 0)},
		"manifest-length": {func(t *testing.T, dir string) {
			patch(t, dir, "mig.manifest", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[16:], 1<<31); return b })
		}, `mig\.manifest`},
		"deep-manifest": {func(t *testing.T, dir string) {
			manifestBody(t, dir, func([]byte) []byte { return bytes.Repeat([]byte("["), 200<<10) })
		}, `mig\.manifest`},
		"many-records": {func(t *testing.T, dir string) {
			patch(t, dir, "mig.state", func(b []byte) []byte {
				one := b[all[0].header : all[0].payload+all[0].length]
				return append(append(b[:all[1].header:all[1].header], bytes.Repeat(one, 1+(8<<20)/len(one))...), b[all[1].header:]...)
			})
			manifest(t, dir, fmt.Sprintf(`"mig.state","size":%d`, sizeOf(t, image, "mig.state")), fmt.Sprintf(`"mig.state","size":%d`, sizeOf(t, dir, "mig.state")))
		}, ``},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyImage(t, image)
			damage.do(t, dir)
			restoreRefused(t, h, dir, damage.want)
		})
	}
	noPanic(t, h)
}

// The directory itself may be anything.
func TestStrangeImageDirectories(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h)
	t.Run("empty", func(t *testing.T) { restoreRefused(t, h, t.TempDir(), `no image is there`) })
	t.Run("missing", func(t *testing.T) { restoreRefused(t, h, filepath.Join(t.TempDir(), "x"), `no such file`) })
	t.Run("file", func(t *testing.T) { restoreRefused(t, h, filepath.Join(image, "mig.state"), `not a directory`) })
	t.Run("symlink", func(t *testing.T) {
		dir := copyImage(t, image)
		remove(t, dir, "mig.state")
		if err := os.Symlink(filepath.Join(image, "mig.state"), filepath.Join(dir, "mig.state")); err != nil {
			t.Fatal(err)
		}
		restoreRefused(t, h, dir, `mig\.state`)
	})
	t.Run("fifo", func(t *testing.T) {
		dir := copyImage(t, image)
		remove(t, dir, "mig.pages-1")
		mkfifo(t, filepath.Join(dir, "mig.pages-1"))
		restoreRefused(t, h, dir, `mig\.pages-1`)
	})
	t.Run("path-in-manifest", func(t *testing.T) {
		dir := copyImage(t, image)
		manifest(t, dir, `"name":"mig.state"`, `"name":"../x/mig.state"`)
		restoreRefused(t, h, dir, `mig\.manifest`)
	})
}

// A CPU that lacks what the image's program may use.
func TestMissingCPUFeatures(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h)
	dir := forge(t, h, image, "manifest.zzz_future1", "manifest.zzz_future2")
	restoreRefused(t, h, dir, `lacks.*zzz_future1 zzz_future2`)
	dir = forge(t, h, image, "subsystem.zzz-gpu")
	restoreRefused(t, h, dir, `zzz-gpu`)
}

// inline counts the records whose payload is in the state file, and its bytes.
func inline(all []entry) (records, bytes int) {
	for _, e := range all {
		if e.file == "mig.state" {
			records, bytes = records+1, bytes+e.length
		}
	}
	return records, bytes
}

// stateLine is what a manifest says of the state file.
func stateLine(size, records, bytes int) string {
	return fmt.Sprintf(`{"name":"mig.state","size":%d,"records":%d,"bytes":%d}`, size, records, bytes)
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, dir, name string, size int) {
	t.Helper()
	if err := os.Truncate(filepath.Join(dir, name), int64(size)); err != nil {
		t.Fatal(err)
	}
}

func sizeOf(t *testing.T, dir, name string) int {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal makes a record's header valid again.
func seal(header []byte) {
	binary.LittleEndian.PutUint32(header[76:], crc32.Checksum(header[:76], castagnoli))
}

// otherVersion makes every file one of the next major version.
func otherVersion(t *testing.T, dir string) {
	for _, name := range []string{"mig.manifest", "mig.state", "mig.pages-1"} {
		patch(t, dir, name, func(b []byte) []byte {
			binary.LittleEndian.PutUint16(b[4:], 2)
			binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
			return b
		})
	}
}

// manifest replaces a text in the manifest's body, and its checksum.
func manifest(t *testing.T, dir, from, to string) {
	t.Helper()
	manifestBody(t, dir, func(body []byte) []byte {
		if !bytes.Contains(body, []byte(from)) {
			t.Fatalf("the manifest has no %s: %s", from, body)
		}
		return bytes.Replace(body, []byte(from), []byte(to), 1)
	})
}

func manifestBody(t *testing.T, dir string, change func([]byte) []byte) {
	t.Helper()
	const body = fileHeader + 8
	patch(t, dir, "mig.manifest", func(b []byte) []byte {
		b = append(b[:body:body], change(b[body:])...)
		binary.LittleEndian.PutUint32(b[16:], uint32(len(b)-body))
		binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(b[body:], castagnoli))
		return b
	})
}
