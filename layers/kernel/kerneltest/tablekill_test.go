// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// listsEnv marks a test binary that stops a container and lists its descriptors until
// it is killed: "PID FREEZER".
const listsEnv = "MIG_KERNELTEST_LISTS"

// listsForEver does it again and again.
func listsForEver(arg string) error {
	pid, freezer, err := victim(arg)
	if err != nil {
		return err
	}
	fmt.Println("begun")
	for ctx := context.Background(); ; {
		source, err := target.NewSource(pid, freezer, nil)
		if err != nil {
			return err
		}
		if err := errors.Join(listAll(ctx, source), source.Release(ctx)); err != nil {
			return err
		}
	}
}

// listAll stops all processes, lists what they have and lets them run on.
func listAll(ctx context.Context, source *target.Source) error {
	held := map[record.ProcessID]bool{}
	for {
		ids, err := source.Hold(ctx)
		if err != nil {
			return err
		}
		fresh := false
		for _, id := range ids {
			if !held[id] {
				held[id], fresh = true, true
				if err := source.Process(id).Setup(ctx); err != nil {
					return err
				}
			}
		}
		if !fresh {
			break
		}
	}
	for _, p := range source.Processes() {
		list, err := p.Descriptors()
		if err != nil {
			return err
		}
		own := 0
		for i := range list {
			if list[i].Thread != 0 {
				own++
			}
		}
		if own == 0 {
			return errors.New("no thread has descriptors of its own")
		}
		if err := p.Restart(ctx); err != nil {
			return err
		}
	}
	return nil
}

// TestKilledInTablesOfThreads: threads with descriptor tables of their own are unharmed,
// whatever the moment at which an engine dies that has one of them say what it has.
func TestKilledInTablesOfThreads(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "here"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := kerneltest.Start(t, kerneltest.Program{Source: "../file/testdata/threads.c", Args: []string{dir, "table"}})
	for i := range many(200) {
		killed(t, c, listsEnv, time.Duration(rand.IntN(9000))*time.Microsecond)
		if i%10 == 0 {
			c.Verify()
		}
	}
	c.Verify()
}
