// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"testing"
	"time"

	"github.com/io-mig/mig/spec/state"
)

// TestStampsOfSkewedClocks: whatever the difference of the hosts' clocks is, the time
// stamp of a moved connection does not go back, and not far ahead.
func TestStampsOfSkewedClocks(t *testing.T) {
	for _, before := range []uint32{1000, 1001, 1<<32 - 2, 1<<32 - 1} { // even ones are milliseconds
		units := longestAway.Milliseconds()
		if before&1 != 0 {
			units = longestAway.Microseconds()
		}
		for _, skew := range []time.Duration{0, time.Minute, time.Hour, 100 * 24 * time.Hour} {
			for _, ahead := range []time.Duration{skew, -skew} {
				r := &rising{msg: &state.Socket{Tcp: &state.TcpConnection{Timestamp: before, ReadAt: time.Now().Add(-ahead).UnixNano()}}}
				if by := int32(r.now() - before); by < 0 || int64(by) > units+1 || r.now()&1 != before&1 {
					t.Errorf("a clock that is %s ahead: %d after %d", ahead, r.now(), before)
				}
			}
		}
	}
}
