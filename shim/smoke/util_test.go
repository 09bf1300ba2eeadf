// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// kill sends SIGKILL to one process.
func kill(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		t.Fatalf("pid %q", pid)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", n, err)
	}
}

// without drops the lines that contain word.
func without(lines []string, word string) []string {
	return slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, word+" --config") })
}
