// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// A restored container's tmpfs is empty, so that what is mapped of it would not
// be found after the original has been ended.
func TestMappingOfATmpfsIsRefused(t *testing.T) {
	dir := t.TempDir()
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/mapped.c", Args: []string{filepath.Join(dir, "sem")}, Tmpfs: dir})
	_, err := c.Export(false, all...)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "sem")) || !strings.Contains(err.Error(), "tmpfs of the container") {
		t.Fatalf("the export said: %v", err)
	}
	c.Verify()
}
