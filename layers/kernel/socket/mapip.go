// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	addresses "github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/state"
)

// The option map-ip (package spec/network) gives a copy other addresses. What is
// bound to an old one is bound to the one in its place. A connection has its
// addresses for life: the other end knows it by them.

// mapped rewrites the local address of a socket that arrives.
func (s *Subsystem) mapped(m *state.Socket) error {
	to, err := addresses.ParseMapping(s.env.Options[addresses.OptionMap])
	if err != nil || len(to) == 0 {
		return err
	}
	local := endpoint(m.Family, m.Local)
	if !local.IsValid() || to.Of(local.Addr()) == local.Addr() {
		return nil
	}
	if m.State == state.SocketState_SOCKET_STATE_CONNECTION {
		return fmt.Errorf("an established TCP connection, %s to %s: %w", local, endpoint(m.Family, m.Remote), errMapped(local.Addr()))
	}
	m.Local = withAddress(m.Family, m.Local, to.Of(local.Addr()))
	return nil
}

func errMapped(a netip.Addr) error {
	return fmt.Errorf("%s is to change (%s), and a connection cannot change its addresses", a, addresses.OptionMap)
}

// withAddress puts an address into a raw one without sa_family, of the same
// family; see endpoint.
func withAddress(family uint32, raw []byte, a netip.Addr) []byte {
	out := append([]byte(nil), raw...)
	if family == unix.AF_INET6 {
		b := a.As16()
		copy(out[6:22], b[:])
	} else {
		b := a.As4()
		copy(out[2:6], b[:])
	}
	return out
}

// keepsAddress refuses a connection whose address the option changes, in the
// pre-flight.
func (n *network) keepsAddress(local, remote netip.AddrPort) error {
	for _, e := range []netip.AddrPort{local, remote} {
		a := e.Addr().Unmap()
		if n.tcp.mapping.Of(a) != a {
			return &refusal{fmt.Sprintf("TCP connection %s to %s", local, remote), errMapped(a).Error(), "end it, move without " + addresses.OptionMap + ", or choose " + OptionTCP + "=" + TCPClose}
		}
	}
	return nil
}
