// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"os"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// shortDir is a directory whose name leaves room in a socket's address.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mig-sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestSocketOnATmpfsOfTheContainer(t *testing.T) {
	dir := shortDir(t)
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/bound.c", Args: []string{dir}, Tmpfs: dir, Generations: 2}, with(nil)...)
}

// The directory would not be there when the restored program's socket is bound.
func TestSocketInADirectoryOnATmpfsIsRefused(t *testing.T) {
	dir := shortDir(t)
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/bound.c", Args: []string{dir, "sub"}, Tmpfs: dir})
	_, err := c.Export(false, with(nil)...)
	if err == nil || !strings.Contains(err.Error(), "/sub/server") || !strings.Contains(err.Error(), "tmpfs of the container") {
		t.Fatalf("the export said: %v", err)
	}
	c.Verify()
}
