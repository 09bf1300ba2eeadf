// SPDX-License-Identifier: Apache-2.0

package file_test

import (
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// findings are those of the pre-flight about the container's tmpfs.
func findings(t *testing.T, c *kerneltest.Container) (list []record.Finding) {
	t.Helper()
	source, err := target.NewSource(c.Pid, c.Freezer, c.Stdio)
	if err != nil {
		t.Fatal(err)
	}
	all, err := file.New(target.Env{Source: source}).Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if strings.Contains(f.Why, "tmpfs of the container") {
			list = append(list, f)
		}
	}
	return list
}

// What is on a tmpfs and not open is lost, which a person has to be told.
func TestClosedFilesOnATmpfsAreWarnedOf(t *testing.T) {
	p := program(t, "tmpfs.c")
	p.Tmpfs = p.Args[0]
	c := kerneltest.Start(t, p)
	list := findings(t, c)
	if len(list) != 1 || !list[0].Warning || list[0].What != "tmpfs "+p.Tmpfs+": closed.pid" {
		t.Fatalf("findings: %+v", list)
	}
}

// A directory on a tmpfs does not travel, so nor does a file in it.
func TestOpenFileInADirectoryOnATmpfsIsRefused(t *testing.T) {
	p := program(t, "tmpfs.c", "sub")
	p.Tmpfs = p.Args[0]
	c := kerneltest.Start(t, p)
	var refused, warned bool
	for _, f := range findings(t, c) {
		refused = refused || !f.Warning && f.FD >= 0 && strings.Contains(f.What, "/sub/file")
		warned = warned || f.Warning && strings.HasSuffix(f.What, ": closed.pid, sub")
	}
	if !refused || !warned {
		t.Fatalf("findings: %+v", findings(t, c))
	}
	if _, err := c.Export(false, all...); err == nil {
		t.Fatal("the export was not refused")
	}
	c.Verify()
}
