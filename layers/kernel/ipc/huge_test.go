// SPDX-License-Identifier: Apache-2.0

package ipc_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/ipc"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/target"
)

// hugeSegments starts a program with two segments of huge pages and exports it. It goes
// on and verifies itself.
func hugeSegments(t *testing.T, bytes uint64) (image *kerneltest.Image) {
	t.Helper()
	if err := target.CheckHugeSize(2 << 20); err != nil {
		t.Skip(err)
	}
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/huge.c", Args: []string{fmt.Sprint(bytes)}, IPC: true})
	image, err := c.Export(true, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Verify()
	c.Stop()
	return image
}

// imports has a container with these rights take an image.
func imports(t *testing.T, allowed *kerneltest.Allowed, image *kerneltest.Image) error {
	t.Helper()
	p := kerneltest.Program{Source: "testdata/objects.c", Args: []string{"none"}, IPC: true, Allowed: allowed}
	if p.Allowed == nil {
		p.Allowed = kerneltest.Root()
	}
	c := kerneltest.Start(t, p)
	c.Stop()
	copied, err := c.Import(image, all...)
	if err == nil {
		copied.Stop()
	}
	return err
}

// An image gets no huge pages that its specification does not let it make, whoever
// is called their maker: by the capability or by the group, of which the latter has to
// be another here than that of the test's machine.
func TestHugeSegmentsNeedTheRight(t *testing.T) {
	image := hugeSegments(t, 4<<20)
	for name, a := range map[string]*kerneltest.Allowed{
		"user":                         {UID: 1000, GID: 4242, Bounding: 1<<41 - 1},
		"user with other groups":       {UID: 1000, GID: 4242, Groups: []uint32{4243}},
		"user with another capability": {UID: 1000, GID: 4242, Permitted: 1 << unix.CAP_IPC_OWNER, Effective: 1 << unix.CAP_IPC_OWNER},
		"root of another group":        {GID: 4242},
	} {
		err := imports(t, a, image)
		if !errors.Is(err, target.ErrNoHugeRight) || !strings.Contains(err.Error(), "CAP_IPC_LOCK") {
			t.Errorf("%s: the import said: %v", name, err)
		}
	}
}

// A pool that is too small ends the restore, by name.
func TestHugeSegmentsNeedPages(t *testing.T) {
	const bytes = 1 << 40
	image := hugeSegments(t, bytes)
	err := imports(t, nil, image)
	if want := fmt.Sprintf("%d huge pages of 2 MB are needed, free are ", uint64(bytes)>>21); !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), want) {
		t.Errorf("the import said: %v, want %q", err, want)
	}
}

// The pre-flight names what the same specification could not make again.
func TestHugeSegmentsOfOthersAreRefused(t *testing.T) {
	if err := target.CheckHugeSize(2 << 20); err != nil {
		t.Skip(err)
	}
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/huge.c", IPC: true})
	source, err := target.NewSource(c.Pid, c.Freezer, c.Stdio)
	if err != nil {
		t.Fatal(err)
	}
	source.OwnIPC = true
	for name, wants := range map[string]struct {
		allowed *target.Allowed
		refused bool
	}{
		"not known": {nil, false}, "root": {kerneltest.Root(), false}, "user": {&target.Allowed{UID: 1000, GID: 4242}, true},
	} {
		source.Allowed = wants.allowed
		found, err := ipc.New(target.Env{Source: source}).Preflight(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, f := range found {
			said = append(said, f.String())
		}
		// The other one, which nobody has attached, is only looked at where there are huge pages.
		if refused := slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "SHM_HUGETLB") && strings.Contains(s, "CAP_IPC_LOCK") }); refused != wants.refused {
			t.Errorf("%s: %q", name, said)
		}
	}
}
