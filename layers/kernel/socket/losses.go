// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// losses tells what a restored socket will lack although it can be restored. It
// is asked while the tasks run, so what comes later is not in it.
func (n *network) losses(t procfs.Task, d *target.Descriptor, how state.SocketState) ([]record.Finding, error) {
	warn := func(what, why, remedy string) []record.Finding {
		return []record.Finding{{Pid: d.Holder, FD: d.FD, Subsystem: Name, What: what, Why: why, Remedy: remedy, Warning: true}}
	}
	name, err := protocol(d)
	if err != nil {
		return nil, err
	}
	switch name {
	case "UDP", "UDPv6", "RAW", "RAWv6", "PING", "PINGv6", "PACKET":
		unread := false
		err := borrow(d.Holder, d.FD, func(own int) error {
			unread = readable(own) && (name[0] != 'U' || !injectable(own))
			return nil
		})
		if err != nil || !unread {
			return nil, err
		}
		return warn(name+" socket", "datagrams that were not read are lost, as a network may lose them", ""), nil
	case "TCP", "TCPv6", "MPTCP", "MPTCPv6":
		return n.lossesTCP(t, d, warn)
	}
	return nil, nil
}

// lossesTCP: with the policy to close, connections that nobody has accepted are
// reset.
func (n *network) lossesTCP(t procfs.Task, d *target.Descriptor, warn func(what, why, remedy string) []record.Finding) ([]record.Finding, error) {
	c, err := connectionOf(d.Holder, d.FD)
	if err != nil || c.state != stateListen || n.carriesWaiting() {
		return nil, err
	}
	lost, err := n.unaccepted(t, &c)
	if err != nil || lost == 0 {
		return nil, err
	}
	return warn(fmt.Sprintf("TCP listener %s", c.local), fmt.Sprintf("%d connections wait to be accepted and are reset", lost), ""), nil
}

// inet6Domain tells which family a socket is of.
func inet6Domain(fd int) (bool, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return domain == unix.AF_INET6, err
}
