// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// Sockets are made by a process with more capabilities than the container has: what
// the kernel would ask a capability for is asked of the live request's spec here.

// needsRaw: socket(2) wants CAP_NET_RAW.
func needsRaw(m *state.Socket) bool {
	return m.Family == unix.AF_PACKET || m.Type == unix.SOCK_RAW && (m.Family == unix.AF_INET || m.Family == unix.AF_INET6)
}

// permitted refuses what a process that the live spec starts could not make.
func permitted(a *target.Allowed, m *state.Socket) error {
	raw, admin := a.CanReach(unix.CAP_NET_RAW), a.CanReach(unix.CAP_NET_ADMIN)
	if needsRaw(m) && !raw {
		return fmt.Errorf("a socket of family %d, type %d, for which the container's spec gives no CAP_NET_RAW", m.Family, m.Type)
	}
	for _, o := range m.Option {
		if privileged(o) && !raw && !admin {
			return fmt.Errorf("option %d of level %d, for which the container's spec gives neither CAP_NET_RAW nor CAP_NET_ADMIN", o.Name, o.Level)
		}
	}
	return nil
}

// interactive is TC_PRIO_INTERACTIVE, the highest priority that anybody may set
// (socket(7)).
const interactive = 6

// privileged: setsockopt(2) wants one of the two capabilities (socket(7), ip(7)).
func privileged(o *state.SocketOption) bool {
	if len(o.Value) < 4 {
		return false
	}
	value := binary.NativeEndian.Uint32(o.Value)
	switch {
	case o.Level == unix.SOL_SOCKET && o.Name == unix.SO_MARK:
		return value != 0
	case o.Level == unix.SOL_SOCKET && o.Name == unix.SO_PRIORITY:
		return value > interactive
	case o.Level == unix.IPPROTO_IP && o.Name == unix.IP_TRANSPARENT, o.Level == unix.IPPROTO_IPV6 && o.Name == unix.IPV6_TRANSPARENT:
		return value != 0
	}
	return false
}
