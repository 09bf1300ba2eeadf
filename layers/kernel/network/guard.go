// SPDX-License-Identifier: Apache-2.0

package network

import (
	"log/slog"
	"net"
	"net/netip"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
)

// Guard keeps the bridges of the caller's host from believing that the interfaces
// of a request which CNI makes are here, until Prepare has silenced them. Without
// what it takes in the kernel it does nothing: then neighbours may ask the copy
// for a moment.
func Guard(r *network.Request, m network.Mapping) {
	var macs []net.HardwareAddr
	var addresses []netip.Addr
	for i := range r.Interfaces {
		n := &r.Interfaces[i]
		if n.Kind != network.CNI {
			continue
		}
		if mac, err := net.ParseMAC(n.MAC); err == nil {
			macs = append(macs, mac)
		}
		for _, p := range n.Addresses {
			addresses = append(addresses, m.Of(p.Addr()))
		}
	}
	if err := netns.Guard(r.Guard, macs, addresses); err != nil {
		slog.Warn("what CNI announces is heard while the original still runs", "error", err)
	}
}

// Unguard ends Guard. It may be repeated, by anybody.
func Unguard(name string) error { return netns.Unguard(name) }
