// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/internal/repo"
)

// goldens are the programs of golden/golden.c of which there is a golden image, and
// what the image of each needs of a machine.
var goldens = []struct{ name, needs string }{
	{"sharing", ""}, {"threads", ""}, {"cgroups", "/sys/fs/cgroup/pids/cgroup.procs"},
}

// TestGoldenContainers restores images of whole containers that an earlier version
// has made (layers/engine/testdata/golden, which that package's tests decode as
// well), as often as there is one: a program that finds something else than what it
// had built says so. With MIG_GOLDEN=write they are made anew first, by the mig that
// is tested: this is for a new image. One that is there proves what it proves only
// while it is the one of the version that has made it.
func TestGoldenContainers(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			if g.needs != "" {
				if _, err := os.Stat(g.needs); err != nil {
					t.Skipf("this machine lacks what the image was made with: %v", err)
				}
			}
			dir := goldenDirectory(t, g.name)
			if os.Getenv("MIG_GOLDEN") == "write" {
				shared.writeGolden(t, g.name, dir)
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			image := shared.image()
			unpack(t, dir, image)
			c := shared.goldenContainer(t, g.name, "")
			shared.restore(ctx, t, c, image)
			shared.good(ctx, t, c)
		})
	}
}

func goldenDirectory(t *testing.T, name string) string {
	t.Helper()
	tree, err := repo.Find()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(tree.Root(), "layers/engine/testdata/golden", name)
}

// goldenContainer is a bundle for a golden program, or for its image if there is no
// program. Its root has nothing that the image could take anything from, and it has
// the host's network: the settings of another one are the kernel's, and many.
func (h *harness) goldenContainer(t *testing.T, name, binary string) *driver.Container {
	t.Helper()
	p := program{name: name}
	if name == "cgroups" {
		p.needs = needsCgroups
	}
	c := h.containerWith(t, p, asRoot, func(spec *specs.Spec) {
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	})
	path := filepath.Join(c.Bundle, "rootfs", driver.ProgramPath)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if binary == "" {
		return c
	}
	if out, err := exec.Command("cp", binary, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return c
}

// writeGolden makes a golden image anew.
func (h *harness) writeGolden(t *testing.T, name, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c := h.goldenContainer(t, name, buildGolden(t))
	if err := h.mig.Run(ctx, c); err != nil {
		t.Fatal(err)
	}
	h.removeLater(t, c)
	h.readies(t, c, name)
	image := h.image()
	if _, err := h.mig.Checkpoint(ctx, c, image, true); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	h.good(ctx, t, c)
	pack(t, image, dir)
}

func buildGolden(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "golden")
	args := strings.Fields("-Os -Wall -Wextra -Werror -static -nostdlib -ffreestanding -fno-builtin -fno-stack-protector " +
		"-fno-asynchronous-unwind-tables -fcf-protection=none -mno-sse -fno-pie -no-pie -Wl,--build-id=none -Wl,-z,noexecstack -s -o")
	if text, err := exec.Command("gcc", append(args, out, "golden/golden.c")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

// pack puts an image among the golden ones: the manifest as it is but for the features
// of this machine's processor, of which the program uses none, the state
// compressed.
func pack(t *testing.T, image, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(image, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("the image has other files than its manifest and its state, %v: make the program smaller (%v)", files, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(read(t, filepath.Join(image, "mig.state"))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "mig.state.gz"), b.Bytes())
	write(t, filepath.Join(dir, "mig.manifest"), withoutFeatures(t, read(t, filepath.Join(image, "mig.manifest"))))
}

// unpack makes an image of a golden one.
func unpack(t *testing.T, dir, image string) {
	t.Helper()
	if err := os.Mkdir(image, 0o700); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(read(t, filepath.Join(dir, "mig.state.gz"))))
	if err != nil {
		t.Fatal(err)
	}
	state, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(image, "mig.state"), state)
	write(t, filepath.Join(image, "mig.manifest"), read(t, filepath.Join(dir, "mig.manifest")))
}

// withoutFeatures is a manifest (docs/image-format.md) that asks nothing of a processor.
func withoutFeatures(t *testing.T, manifest []byte) []byte {
	t.Helper()
	const head = 16
	body := regexp.MustCompile(`"cpu_features":\[[^]]*\]`).ReplaceAll(manifest[head+8:], []byte(`"cpu_features":[]`))
	b := bytes.Clone(manifest[:head])
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, body...)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
