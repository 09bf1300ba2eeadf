// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"testing"

	"github.com/io-mig/mig/spec/state"
)

// TestRehearsal: how many bytes, by what was on its way; and who does without.
func TestRehearsal(t *testing.T) {
	const segment = 1448
	for _, c := range []struct {
		what         string
		sent, unsent int
		change       func(*state.TcpConnection)
		want         int
	}{
		{"nothing was on its way", 0, 100, nil, 1},
		{"a burst", burst * segment, 0, nil, 1},
		{"more", 20*segment + 1, 5000, nil, 21 - burst},
		{"very much", 5000 * segment, 0, nil, mostRehearsed},
		{"within the container", 1, 0, func(c *state.TcpConnection) { c.Outside = false }, 0},
		{"without time stamps", 1, 0, func(c *state.TcpConnection) { c.Timestamps = false }, 0},
		{"never measured", 1, 0, func(c *state.TcpConnection) { c.RoundTrip = 0 }, 0},
		{"longer than without", 1, 0, func(c *state.TcpConnection) { c.RoundTrip = longestRehearsed + 1 }, 0},
		{"a forged number", 1, 0, func(c *state.TcpConnection) { c.Unsent = 1 << 31 }, 0},
	} {
		m := &state.TcpConnection{Outside: true, Timestamps: true, RoundTrip: 20, Mss: segment + timestampsSize, Segment: segment, Unsent: uint32(c.unsent)}
		if c.change != nil {
			c.change(m)
		}
		if got := rehearsal(&arrival{msg: &state.Socket{Tcp: m}, send: make([]byte, c.sent+c.unsent)}); got != c.want*segment {
			t.Errorf("%s: %d bytes, want %d segments", c.what, got, c.want)
		}
	}
}
