// SPDX-License-Identifier: Apache-2.0

package itest

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestDigest(t *testing.T) {
	const stacks = `goroutine 1 [chan receive, 12 minutes]:
testing.(*T).Run(0x1, {0x2, 0x3})
	/go/src/testing.go:1 +0x1
github.com/io-mig/mig/integration/live.(*world).move(0xc0, {0x1, 0x2})
	/x/move.go:1 +0x2
created by github.com/io-mig/mig/integration/live.other in goroutine 7

goroutine 9 [running]:
main.main()
	/x/main.go:1 +0x2

goroutine 10 gp=0x1 m=nil mp=0x4 [select]:
github.com/io-mig/mig/shim.wait(...)
	/x/wait.go:1 +0x2
`
	want := []string{"[chan receive, 12 minutes] integration/live.(*world).move", "[select] shim.wait"}
	for name, text := range map[string]string{
		"as printed": stacks,
		"in a log":   `msg=goroutines stacks="` + strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(stacks),
	} {
		if got := digest(text); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestDigestOfOneself(t *testing.T) {
	buf := make([]byte, 1<<20)
	got := digest(string(buf[:runtime.Stack(buf, true)]))
	if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "itest.TestDigestOfOneself") }) {
		t.Errorf("not in %q", got)
	}
}
