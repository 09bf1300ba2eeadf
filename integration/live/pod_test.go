// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/lab"
)

// Addresses of a pod and of the client that talks to it. The hardware address
// is the same on both hosts, so that the bridge learns with the first packet of
// the copy where the pod is.
const (
	podIP4, podIP6 = "10.77.0.50", "fd77::50"
	clientIP6      = "fd77::13"
	podMAC         = "02:00:00:77:00:50"
	clientMAC      = "02:00:00:77:00:13"
	podNet         = "/run/netns/pod"
	quietly        = "for d in all default; do sysctl -qw net.ipv6.conf.$d.accept_dad=0 net.ipv6.conf.$d.router_solicitations=0 net.ipv6.conf.$d.accept_ra=0; done"
	mute           = `nft "add table inet mute; add chain inet mute output { type filter hook output priority 0; }; add rule inet mute output meta l4proto { icmpv6, igmp } drop"`
	deafness       = "sysctl -qw net.ipv4.conf.all.arp_ignore=8 net.ipv4.conf.eth0.arp_ignore=8"
)

// pod gives both hosts a network namespace of the same name with the same
// addresses, on the lab's bridge. Neither answers who it is: the client knows.
func (w *world) pod() {
	w.t.Helper()
	must := func(h *lab.Host, script string) {
		w.t.Helper()
		if err := h.Run("set -e; " + script); err != nil {
			w.t.Fatal(err)
		}
	}
	must(w.client, fmt.Sprintf(`ip link set eth0 down; ip link set eth0 address %s; ip link set eth0 up
		sysctl -qw net.ipv6.conf.eth0.accept_dad=0
		ip -6 addr replace %s/64 dev eth0 nodad
		for a in %s %s; do ip neigh replace $a lladdr %s dev eth0 nud permanent; done`,
		clientMAC, clientIP6, podIP4, podIP6, podMAC))
	for _, h := range []*host{w.alpha, w.beta} {
		must(h.Host, `ip netns add pod; ip netns exec pod sh -ec '`+mute+`; `+quietly+`; ip link set lo up'`)
		if err := w.lab.Plug(h.Host, podNet, "pod-"+h.Name); err != nil {
			w.t.Fatal(err)
		}
		must(h.Host, fmt.Sprintf(`ip netns exec pod sh -ec 'ip link set eth0 address %s; %s
			ip addr add %s/24 dev eth0; ip -6 addr add %s/64 dev eth0 nodad; ip link set eth0 up
			for a in %s %s; do ip neigh replace $a lladdr %s dev eth0 nud permanent; done'`,
			podMAC, deafness, podIP4, podIP6, w.client.IP, clientIP6, clientMAC))
	}
	// The bridge learns that the pod is on alpha.
	must(w.alpha.Host, "ip netns exec pod busybox ping -qc1 -w5 "+w.client.IP)
}

// dial connects from the client's host.
func (w *world) dial(ctx context.Context, address string) (c net.Conn, err error) {
	// The thread comes back and goes on: the lab's processes end with the thread that
	// started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(back)
	there, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", w.client.Pid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	defer func() {
		if e := unix.Setns(back, unix.CLONE_NEWNET); e != nil {
			panic(e)
		}
	}()
	d := net.Dialer{Timeout: 10 * time.Second}
	return d.DialContext(ctx, "tcp", address)
}
