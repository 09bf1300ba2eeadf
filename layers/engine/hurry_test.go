// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/procfs"
)

// TestHurry: all threads are given another niceness for a switch, and their own
// behind it, also behind one that fails.
func TestHurry(t *testing.T) {
	all := func() (nices map[int]bool) {
		tids, err := procfs.Host().Process(os.Getpid()).Threads()
		if err != nil {
			t.Fatal(err)
		}
		nices = map[int]bool{}
		for _, tid := range tids {
			if raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid); err == nil {
				nices[20-raw] = true
			}
		}
		return nices
	}
	becomes := func(nice int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; {
			got := all()
			if len(got) == 1 && got[nice] {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("threads are at %v, want %d", got, nice)
			}
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, urgentNice); err != nil {
		t.Skipf("without the privilege to hurry nothing changes: %v", err)
	}
	const normal = 0
	hurry(normal) // whatever the test was started with
	becomes(normal)
	for _, end := range []control.State{control.StateDecided, control.StateRolledBack} {
		seen := 0
		observe := hurrying(func(control.Transition) { seen++ }, control.StateHolding, control.StateDecided)
		observe(control.Transition{To: control.StateEarly})
		becomes(normal)
		observe(control.Transition{To: control.StateHolding})
		becomes(urgentNice)
		observe(control.Transition{To: control.StateSetup})
		observe(control.Transition{To: control.StateHolding})
		becomes(urgentNice)
		observe(control.Transition{To: end})
		becomes(normal)
		if seen != 5 {
			t.Errorf("%d of 5 transitions were passed on", seen)
		}
	}
}
