// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// TestRings: rings of io_setup(2) stay where they are, with what was completed.
func TestRings(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{
		Source: "testdata/aio.c", Args: []string{filepath.Join(t.TempDir(), "file")}, Generations: 3, LeaveRunning: true,
	}, withFiles...)
}
