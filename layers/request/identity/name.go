// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/tls"
	"net"
	"strings"
)

// Name is the host that has authenticated itself at the other end of a
// connection: its certificate's common name, which a new certificate of the same
// host keeps, or else the names that it is valid for. Empty: there is no TLS, or no
// handshake yet.
func Name(conn net.Conn) string {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	chain := t.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return ""
	}
	if name := chain[0].Subject.CommonName; name != "" {
		return name
	}
	names := chain[0].DNSNames
	for _, ip := range chain[0].IPAddresses {
		names = append(names, ip.String())
	}
	return strings.Join(names, ",")
}
