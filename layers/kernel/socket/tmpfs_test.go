// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"os"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/rootfs"
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

// The name is bound again, also in a directory on the tmpfs.
func TestSocketOnATmpfsOfTheContainer(t *testing.T) {
	for _, sub := range [][]string{nil, {"sub"}} {
		dir := shortDir(t)
		p := kerneltest.Program{Source: "testdata/bound.c", Args: append([]string{dir}, sub...), Tmpfs: dir, Generations: 2}
		kerneltest.RoundTrip(t, p, append(with(nil), kerneltest.Of(rootfs.New))...)
	}
}
