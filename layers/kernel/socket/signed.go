// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// Signatures of TCP segments have keys that the kernel gives to nobody but root, or
// to nobody: a copy would send segments that the other end drops.

// tcpAOInfo is TCP_AO_INFO of include/uapi/linux/tcp.h (Linux 6.7).
const tcpAOInfo = 40

// hasAO tells of keys of TCP-AO (RFC 5925).
func hasAO(fd int) bool {
	b, err := get(fd, unix.IPPROTO_TCP, tcpAOInfo, longestValue)
	return err == nil && len(b) > 0
}

// diagMD5 is INET_DIAG_MD5SIG of include/uapi/linux/inet_diag.h: the kernel tells of
// the keys to whoever has CAP_NET_ADMIN in the network namespace.
const diagMD5 = 18

// signature names how the segments of a connection or a listener are signed, empty
// if they are not.
func (n *network) signature(t procfs.Task, c *connection) (string, error) {
	if c.ao {
		return "TCP-AO", nil
	}
	e := ends{c.local, c.remote}
	if !e.remote.IsValid() { // a listener
		e.remote = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		if e.local.Addr().Is4() {
			e.remote = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
	}
	var found *inetSocket
	err := target.InNamespace(t.Path("ns/net"), func() (err error) { found, err = findInet(e); return err })
	if err != nil || found == nil || !found.md5 {
		return "", err
	}
	return "TCP_MD5SIG", nil
}

func signedRefusal(what, how string) *refusal {
	return &refusal{what, "its segments are signed (" + how + "), with keys that are not carried by this version", "close it before the checkpoint"}
}
