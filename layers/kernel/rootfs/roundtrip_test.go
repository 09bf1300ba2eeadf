// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"fmt"
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/rootfs"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(task.New), kerneltest.Of(rootfs.New), kerneltest.Of(memory.New), kerneltest.Of(file.New), kerneltest.Of(pipe.New),
	kerneltest.Of(signal.New), kerneltest.Of(credential.New), kerneltest.Of(cpu.New),
}

func tree(t *testing.T, size int) kerneltest.Program {
	dir := t.TempDir()
	return kerneltest.Program{Source: "testdata/tree.c", Args: []string{dir, fmt.Sprint(size)}, Tmpfs: dir}
}

// TestTmpfs: what is on a tmpfs of the container is there after the restore,
// and is the same file for all who have it.
func TestTmpfs(t *testing.T) {
	const small, large = 64 << 10, 24 << 20
	for name, edit := range map[string]func(*kerneltest.Program){
		"root":           func(p *kerneltest.Program) { p.LeaveRunning = true },
		"user namespace": func(p *kerneltest.Program) { p.UserNamespace = true },
		"user": func(p *kerneltest.Program) {
			p.UID, p.GID = 1000, 1000
			p.Allowed = &kerneltest.Allowed{UID: 1000, GID: 1000, Bounding: 1<<41 - 1}
		},
		"large": func(p *kerneltest.Program) { p.Args[1] = fmt.Sprint(large) },
	} {
		t.Run(name, func(t *testing.T) {
			p := tree(t, small)
			p.Generations = 3
			edit(&p)
			kerneltest.RoundTrip(t, p, all...)
		})
	}
}
