// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/rootfs"
)

// What is mapped of a tmpfs is the file that has the name there.
func TestMappingOfATmpfs(t *testing.T) {
	dir := t.TempDir()
	p := kerneltest.Program{Source: "testdata/mapped.c", Args: []string{filepath.Join(dir, "sem")}, Tmpfs: dir, Generations: 3}
	kerneltest.RoundTrip(t, p, append(slices.Clone(withFiles), kerneltest.Of(rootfs.New))...)
}
