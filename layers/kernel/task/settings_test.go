// SPDX-License-Identifier: Apache-2.0

package task

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// The use of tiles is asked for where the program had it: no other component
// needs that, and a processor without tiles refuses it.
func TestTilesAreAskedFor(t *testing.T) {
	for mask, want := range map[uint64]int{0: 0, 0x2e7: 0, 0x602e7: 1, 1 << xstateTiles: 1} {
		calls := permissions(&state.ProcessSettings{XstatePermission: mask})
		if len(calls) != want || want == 1 && (calls[0].Nr != unix.SYS_ARCH_PRCTL || calls[0].Args != [6]uint64{archReqXcompPerm, xstateTiles}) {
			t.Errorf("%#x: %+v", mask, calls)
		}
	}
}
