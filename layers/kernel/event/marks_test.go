// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// mounted is a directory that is a mount of its own, of all users or of root.
func mounted(t *testing.T, mode string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts: needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode="+mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

var withCredentials = append(all[:len(all):len(all)], kerneltest.Of(credential.New))

func TestMarks(t *testing.T) {
	for _, kind := range []string{"mount", "files", "dropped"} {
		t.Run(kind, func(t *testing.T) {
			p := kerneltest.Program{Source: "testdata/marks.c", Args: []string{kind, mounted(t, "777")}, Generations: 3}
			kerneltest.RoundTrip(t, p, withCredentials...)
		})
	}
}

// An image gets a group only as one that the live spec lets its programs make.
func TestMarksBeyondTheSpec(t *testing.T) {
	const everything = 1<<41 - 1
	for kind, c := range map[string]struct {
		allowed kerneltest.Allowed
		mode    string
		want    string // "": it is carried, and narrowed
	}{
		"mount":    {kerneltest.Allowed{Bounding: everything &^ (1 << unix.CAP_SYS_ADMIN)}, "777", "needs CAP_SYS_ADMIN, which the container's spec does not give"},
		"files":    {kerneltest.Allowed{UID: 1000, GID: 1000}, "700", "may the container's user read them"},
		"narrowed": {kerneltest.Allowed{Bounding: everything &^ (1 << unix.CAP_SYS_ADMIN)}, "777", ""},
	} {
		t.Run(kind, func(t *testing.T) {
			allowed := kerneltest.Root()
			n := kerneltest.Start(t, kerneltest.Program{Source: "testdata/marks.c", Args: []string{kind, mounted(t, c.mode)}, Allowed: allowed})
			n.Verify()
			image, err := n.Export(false, all...)
			if err != nil {
				t.Fatal(err)
			}
			n.Stop()
			*allowed = c.allowed
			n, err = n.Import(image, all...)
			if c.want == "" && err == nil {
				n.Verify()
			} else if c.want == "" || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("the import says %v, want %q", err, c.want)
			}
		})
	}
}
