// SPDX-License-Identifier: Apache-2.0

package pipe_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// TestPipesOfABusyUser: the copy's user has more pages in pipes than unprivileged
// processes may get (fs.pipe-user-pages-soft). The pipes are whole all the same.
func TestPipesOfABusyUser(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pages == 0 {
		t.Skipf("there is no limit: %q, %v", b, err)
	}
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/pipes.c", UID: 1000, GID: 1000, Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000}})
	image, err := c.Export(true, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	const each = 256 // pages of a pipe: 1 MiB is what everybody may have
	for n := 0; n <= pages+each; n += each {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
		if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, each*os.Getpagesize()); err != nil {
			t.Fatal(err)
		}
	}
	n, err := c.Import(image, all...)
	if err != nil {
		t.Fatal(err)
	}
	n.Verify()
}
