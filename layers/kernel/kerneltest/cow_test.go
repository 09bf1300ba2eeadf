// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// footprint is the memory of all processes of a container, in KiB: the sum of
// their proportional set sizes, to which each page counts once.
func footprint(t *testing.T, c *kerneltest.Container) int {
	t.Helper()
	pids, err := c.Freezer.Pids()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, pid := range pids {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			n := 0
			if rest, ok := strings.CutPrefix(sc.Text(), "Pss:"); ok {
				if _, err := fmt.Sscan(rest, &n); err != nil {
					t.Fatal(err)
				}
				total += n
			}
		}
		f.Close()
	}
	return total
}

// TestCopyOnWrite: what a parent and its children share stays shared: the
// container needs no more memory than before, and the image holds a page once.
func TestCopyOnWrite(t *testing.T) {
	for _, user := range []int{0, 1000} {
		p := kerneltest.Program{Source: "testdata/cow.c", UID: user, GID: user, LeaveRunning: user == 0}
		if user != 0 {
			p.Dynamic = true
			p.Allowed = &kerneltest.Allowed{UID: uint32(user), GID: uint32(user), Bounding: 1<<41 - 1}
		}
		c := kerneltest.Start(t, p)
		for range many(3) {
			c.Verify()
			before := footprint(t, c)
			image, err := c.Export(p.LeaveRunning, whole...)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, r := range image.Records {
				size += len(r.Payload)
			}
			if p.LeaveRunning {
				c.Verify()
				if left := footprint(t, c); left > before+before/20 {
					t.Errorf("the original has grown from %d KiB to %d KiB by being looked at", before, left)
				}
			}
			c.Stop()
			if c, err = c.Import(image, whole...); err != nil {
				t.Fatal(err)
			}
			c.Verify()
			after := footprint(t, c)
			t.Logf("uid %d: %d KiB before, %d KiB after, %d KiB in the image", user, before, after, size>>10)
			if after > before+before/20 {
				t.Errorf("the processes have %d KiB and had %d KiB", after, before)
			}
			if size>>10 > before+before/20 {
				t.Errorf("the image has %d KiB, the processes had %d KiB", size>>10, before)
			}
		}
	}
}

// TestMoveCopyOnWrite: so does a move of the running container. What stays behind
// at the switch cannot be shared, but is right.
func TestMoveCopyOnWrite(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/cow.c"})
	c.Verify()
	before := footprint(t, c)
	for range many(2) {
		moved, _, err := c.Move(rounds(2), whole...)
		if err != nil {
			t.Fatal(err)
		}
		c = moved
		c.Verify()
		after := footprint(t, c)
		t.Logf("%d KiB before, %d KiB after", before, after)
		if after > before+before/20 {
			t.Errorf("the processes have %d KiB and had %d KiB", after, before)
		}
	}
	moved, _, err := c.Move(lazily(1), whole...)
	if err != nil {
		t.Fatal(err)
	}
	moved.Verify()
}
