// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// ethertype and protocol are those of testdata/kinds.c.
const ethertype, protocol = 0x88b5, 253

// wholeNetwork is a namespace with interfaces of each kind that mig makes again, and
// with something of everything that they and the namespace may have.
const wholeNetwork = `ip link set dum0 up alias "of no use" mtu 1400
sysctl -qw net.ipv4.ping_group_range="0 2147483647" net.ipv4.tcp_keepalive_time=333 net.ipv4.conf.mv0.rp_filter=2 net.ipv6.conf.dum0.hop_limit=77
ip addr add 10.88.0.1/24 dev dum0; ip -6 addr add fd88::1/64 dev dum0 nodad
ip addr add 10.77.0.60/24 dev mv0; ip -6 addr add fd77::60/64 dev mv0 nodad; ip link set mv0 up
ip route add 10.99.0.0/16 via 10.77.0.13 dev mv0 metric 7; ip -6 route add fd99::/64 via fd77::13 dev eth0; ip route add 10.98.0.0/16 dev dum0 table 77; ip route add blackhole 10.97.0.0/16
ip rule add from 10.88.0.1 table 77 pref 700; ip -6 rule add from fd88::1 table 77 pref 701
ip neigh add 10.88.0.9 lladdr 02:00:00:00:00:99 dev dum0 nud permanent; ip neigh add fd88::9 lladdr 02:00:00:00:00:98 dev dum0 nud permanent
nft 'add table inet shop { set gone { type ipv4_addr; elements = { 10.1.1.1, 10.1.1.2 } ; } ; chain in { type filter hook input priority 10 ; ip saddr @gone counter drop ; tcp dport 99 reject ; } ; }'
iptables -A INPUT -s 10.2.2.2 -j DROP; ip6tables -A INPUT -s fd02::2 -j DROP
tc qdisc add dev dum0 root handle 1: htb default 10; tc class add dev dum0 parent 1: classid 1:10 htb rate 1mbit; tc qdisc add dev mv0 root handle 2: tbf rate 100mbit burst 64k limit 1m`

// wholeContent shows it. Numbers that the kernel gives to interfaces of the host are
// left out; routes of one destination and metric come in the order in which their
// interfaces were raised, which means nothing.
const wholeContent = `for i in eth0 mv0 dum0; do ip -o link show $i | sed 's/@[^:]*//; s/ state [A-Z]*//; s/link-netnsid.*//; s/NO-CARRIER,//'; done
ip -o addr | sed 's/@[^ ]*//'; ip route show table all | sort; ip rule; ip -6 rule; ip neigh show nud permanent; ip -6 neigh show nud permanent
sysctl net.ipv4.tcp_keepalive_time net.ipv4.conf.mv0.rp_filter net.ipv6.conf.dum0.hop_limit net.ipv4.ping_group_range
nft list table inet shop; iptables-save | grep ^-; ip6tables-save | grep ^-; tc qdisc show dev dum0 | sed 's/direct_packets_stat [0-9]*//'; tc class show dev dum0; tc qdisc show dev mv0`

// TestWholeNetworkMoves: a veth, a macvlan and a dummy with everything on them are
// the same on the other host, and back. Sockets of every kind keep their addresses,
// filters and groups: what the client's host sends to each of them arrives.
func TestWholeNetworkMoves(t *testing.T) {
	i := witness(t, "kinds")
	w := newWorld(t, daemon.V24, i)
	w.runPod(i, "kinds", "/kinds", w.client.IP, clientIP6)
	if err := w.alpha.Run("ip link add mv0 link br0 netns " + w.alpha.pid("kinds") + " type macvlan mode bridge"); err != nil {
		t.Fatal(err)
	}
	w.secondInterface("kinds")
	w.alpha.inNetwork(t, "kinds", wholeNetwork)
	c := w.questions()
	w.good(c, "build")
	waitFor(t, 10*time.Second, "IPv6 uses its addresses", func() bool {
		return !strings.Contains(w.alpha.inNetwork(t, "kinds", "ip -6 addr"), "tentative")
	})
	was := w.alpha.inNetwork(t, "kinds", wholeContent)
	w.everyKind(c)
	from, to := w.alpha, w.beta
	for range 2 {
		w.mustMove(from, "kinds", to.IP)
		w.everyKind(c)
		if is := to.inNetwork(t, "kinds", wholeContent); is != was {
			t.Errorf("on %s:\n%s\nwas:\n%s", to.Name, is, was)
		}
		for family, ip := range map[string]string{"-4": "10.77.0.60", "-6": "fd77::60"} {
			if out, err := w.client.Command(t.Context(), "busybox", "ping", family, "-c1", "-W5", ip).CombinedOutput(); err != nil {
				t.Errorf("the macvlan on %s: %v: %s", to.Name, err, out)
			}
		}
		w.one("kinds", to, from)
		from, to = to, from
	}
}

// secondInterface makes dum0, a dummy. A kernel without them (CONFIG_DUMMY) has
// another macvlan in its place.
func (w *world) secondInterface(id string) {
	w.t.Helper()
	script := "ip link add dum0 address 02:00:00:00:0d:01 netns " + w.alpha.pid(id) + " type dummy"
	err := w.alpha.Run(script)
	if err != nil && strings.Contains(err.Error(), "Unknown device type") {
		w.t.Log("this kernel has no dummy interfaces: a macvlan is there instead")
		err = w.alpha.Run("ip link add dum0 link br0 address 02:00:00:00:0d:01 netns " + w.alpha.pid(id) + " type macvlan mode private")
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// everyKind sends something to each socket of testdata/kinds.c, and has it verify
// itself.
func (w *world) everyKind(c *net.UDPConn) {
	w.t.Helper()
	w.good(c, "verify")
	for name, send := range map[string]func([]byte) error{
		"datagram6": w.sendTo(unix.AF_INET6, 0, podIP6, 7001),
		"connected": w.sendTo(unix.AF_INET, 7100, podIP4, 7002),
		"group4":    w.sendTo(unix.AF_INET, 0, "239.1.2.3", 7003),
		"source4":   w.sendTo(unix.AF_INET, 0, "232.1.2.3", 7004),
		"group6":    w.sendTo(unix.AF_INET6, 0, "ff05::77", 7005),
		"raw":       w.sendRaw(podIP4),
		"packet":    w.sendFrame(),
	} {
		w.arrives(c, name, send)
	}
}

var words int

// arrives sends a word until the witness says that it has come.
func (w *world) arrives(c *net.UDPConn, name string, send func([]byte) error) {
	w.t.Helper()
	words++
	word := fmt.Sprint("yes-", words)
	b := make([]byte, 1024)
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
		if err := send([]byte(word)); err != nil {
			w.t.Fatalf("to %s: %v", name, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(b); err == nil && string(b[:n]) == name+" "+word {
			// What was sent twice comes twice.
			for c.SetReadDeadline(time.Now().Add(20*time.Millisecond)) == nil {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		}
	}
	w.t.Errorf("what is sent to %s does not arrive", name)
}

// sendTo sends datagrams from the client's host, to groups by its cable.
func (w *world) sendTo(family, from int, ip string, port int) func([]byte) error {
	return func(b []byte) error {
		return w.byHost(family, unix.SOCK_DGRAM, 0, func(fd, index int) error {
			var own, to unix.Sockaddr
			if family == unix.AF_INET6 {
				own, to = &unix.SockaddrInet6{Port: from}, &unix.SockaddrInet6{Port: port, Addr: [16]byte(net.ParseIP(ip).To16()), ZoneId: uint32(index)}
			} else {
				own, to = &unix.SockaddrInet4{Port: from}, &unix.SockaddrInet4{Port: port, Addr: [4]byte(net.ParseIP(ip).To4())}
			}
			if err := unix.Bind(fd, own); err != nil {
				return err
			}
			return unix.Sendto(fd, b, 0, to)
		})
	}
}

func (w *world) sendRaw(ip string) func([]byte) error {
	return func(b []byte) error {
		return w.byHost(unix.AF_INET, unix.SOCK_RAW, protocol, func(fd, _ int) error {
			return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(ip).To4())})
		})
	}
}

// sendFrame sends a frame to everybody, after one that the witness's filter drops.
func (w *world) sendFrame() func([]byte) error {
	kind := uint16(ethertype>>8 | ethertype&0xff<<8) // in network byte order
	return func(b []byte) error {
		return w.byHost(unix.AF_PACKET, unix.SOCK_DGRAM, 0, func(fd, index int) error {
			to := &unix.SockaddrLinklayer{Protocol: kind, Ifindex: index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
			if err := unix.Sendto(fd, []byte("no"), 0, to); err != nil {
				return err
			}
			return unix.Sendto(fd, b, 0, to)
		})
	}
}

// byHost opens a socket on the client's host; index is that of its interface.
func (w *world) byHost(family, typ, protocol int, fn func(fd, index int) error) error {
	return w.client.InNetwork(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return fn(fd, link.Index)
	})
}

// TestToolsOfNetworks: what the tests above call is there, and not a shell's empty
// output on both sides.
func TestToolsOfNetworks(t *testing.T) {
	for _, name := range []string{"ip", "tc", "nft", "iptables", "ip6tables", "iptables-save", "ip6tables-save", "sysctl", "busybox", "unshare", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Errorf("hack/deps.sh installs it: %v", err)
		}
	}
}
