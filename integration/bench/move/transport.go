// SPDX-License-Identifier: Apache-2.0

package move

import "strings"

// Transport is how the hosts speak.
type Transport string

// The transports.
const (
	TLS   Transport = "TLS"
	Plain Transport = "plain"
)

// mig speaks plain text to addresses of the loopback network only. To measure
// what TLS costs over the same bridge, each host gets an address of that network
// on its end of the bridge: route_localnet takes such addresses for ordinary
// ones (Documentation/networking/ip-sysctl.rst), once the route that leads all
// of 127.0.0.0/8 to the own host has made room.
const plainScript = `
for d in all eth0; do echo 1 >/proc/sys/net/ipv4/conf/$d/route_localnet; done
ip route add local 127.0.0.1 dev lo table local 2>/dev/null || true
ip route del local 127.0.0.0/8 dev lo table local
ip addr add %s/24 dev eth0 scope global
`

// plain is the host's address for plain text.
func (h *Host) plain() string { return "127.77.0." + h.IP[strings.LastIndexByte(h.IP, '.')+1:] }

// address is where the host's migd for a transport listens.
func (h *Host) address(t Transport) string {
	if t == Plain {
		return h.plain() + ":7117"
	}
	return h.IP + ":7117"
}

// identity are the flags of mig and migd for a transport.
func (h *Host) identity(t Transport) []string {
	if t == Plain {
		return []string{"--insecure"}
	}
	return []string{"--tls", h.tls}
}
