// SPDX-License-Identifier: Apache-2.0

package itest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFailures(t *testing.T) {
	printed := `--- FAIL: TestA (0.00s)
    --- FAIL: TestA/v16 (0.00s)
        a_test.go:4: outer
        --- FAIL: TestA/v16/op (0.00s)
            a_test.go:5: differs:
                + x
            a_test.go:5: runc, in full:
                line
        a_test.go:6: containerd 1.6 says:
            level=debug
    a_test.go:7: behind its children
--- PASS: TestB (0.00s)
--- FAIL: TestC (0.00s)
` + strings.Repeat("    c_test.go:1: again\n", 2*shownLines+3) + "    c_test.go:2: " + strings.Repeat("x", shownWidth) + "\nFAIL\n"
	var f failures
	for line := range strings.Lines(printed) {
		f.line(strings.TrimSuffix(line, "\n"))
	}
	again := "    c_test.go:1: again"
	want := []string{
		"failed: TestA", "    a_test.go:7: behind its children",
		"failed: TestA/v16", "        a_test.go:4: outer",
		"failed: TestA/v16/op", "            a_test.go:5: differs:", "                + x",
		"failed: TestC",
	}
	for i := range 2 * shownLines {
		if i == shownLines {
			want = append(want, fmt.Sprintf("    [%d lines]", 4))
		}
		want = append(want, again)
	}
	want[len(want)-1] = "    c_test.go:2: " + strings.Repeat("x", shownWidth-len("    c_test.go:2: "))
	if diff := cmp.Diff(want, f.repeated()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
