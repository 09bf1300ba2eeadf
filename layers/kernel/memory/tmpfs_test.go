// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// A restored container's tmpfs is empty: what is mapped of it travels, and has
// its name there again.
func TestMappingOfATmpfs(t *testing.T) {
	dir := t.TempDir()
	p := kerneltest.Program{Source: "testdata/mapped.c", Args: []string{filepath.Join(dir, "sem")}, Tmpfs: dir, Generations: 3}
	kerneltest.RoundTrip(t, p, withFiles...)
}
