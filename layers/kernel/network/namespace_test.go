// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/state"
)

// newNamespace makes one that nobody is in.
func newNamespace(t *testing.T) (f *os.File) {
	t.Helper()
	kerneltest.InNetwork(t, func() (err error) {
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	t.Cleanup(func() { f.Close() })
	return f
}

// sh runs commands in the calling thread's network namespace.
func sh(script string) error {
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// in runs commands in a namespace.
func in(ns *os.File, script string) error { return inside(ns, func() error { return sh(script) }) }

// attach makes a veth into a namespace, with its other end on br0.
func attach(ns *os.File, outer string) error {
	if err := sh("ip link show br0 >/dev/null 2>&1 || { ip link add br0 type bridge; ip link set br0 up; }"); err != nil {
		return err
	}
	h, err := netns.Open(nil)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.MakeVeth(ns, &netns.Link{Name: "eth0", Kind: netns.KindVeth, Index: 7, MTU: 1400}, outer); err != nil {
		return err
	}
	return sh("ip link set " + outer + " master br0 up")
}

const content = `
ip link set lo up
ip link set eth0 up alias "front door" txqueuelen 321
ip addr add 10.9.0.2/24 brd + dev eth0
ip addr add 10.9.0.3/24 dev eth0 label eth0:web
ip addr add 192.168.77.1/32 dev lo scope host
ip addr add 2001:db8::2/64 dev eth0 nodad
ip addr add 2001:db8::3/64 dev eth0 nodad valid_lft 5000 preferred_lft 4000
ip route add default via 10.9.0.1
ip route add 10.20.0.0/16 via 10.9.0.9 metric 7 mtu 1300 src 10.9.0.3
ip route add 10.30.0.0/16 nexthop via 10.9.0.10 weight 2 nexthop via 10.9.0.11
ip route add blackhole 10.66.0.0/16
ip route add table 100 default via 10.9.0.7
ip -6 route add default via 2001:db8::1
ip -6 route add 2001:db8:5::/48 via 2001:db8::9 metric 77
ip rule add from 10.9.0.3 table 100 priority 500
ip rule add not fwmark 0x2a/0xff iif eth0 lookup 200 priority 600
ip -6 rule add to 2001:db8:7::/48 table 100 priority 700
ip neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
ip neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud stale
ip -6 neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
ip neigh add proxy 10.9.0.200 dev eth0
sysctl -qw net.ipv4.tcp_keepalive_time=777 net.ipv4.ip_forward=1 net.core.somaxconn=999 net.ipv4.conf.eth0.arp_ignore=1 net.ipv6.conf.eth0.accept_ra=0
tc qdisc add dev eth0 root handle 1: htb default 10
tc class add dev eth0 parent 1: classid 1:1 htb rate 100mbit
tc class add dev eth0 parent 1:1 classid 1:10 htb rate 10mbit ceil 50mbit
tc qdisc add dev eth0 parent 1:10 handle 20: bfifo limit 30000
`

// made again: a namespace with a bit of everything is read and built in another,
// which reads the same.
func TestNamespaceIsMadeAgain(t *testing.T) {
	kerneltest.InNetwork(t, func() error {
		from, to := newNamespace(t), newNamespace(t)
		if err := errors.Join(attach(from, "outer0"), in(from, content)); err != nil {
			return err
		}
		was, err := settledRead(from)
		if err != nil {
			return err
		}
		b, err := newBuilder(to, nil, nil)
		if err != nil {
			return err
		}
		b.rebuild = true
		for range 2 { // the second time nothing is left to do
			if err := b.build(through(t, was)); err != nil {
				return err
			}
		}
		if len(b.lost) > 0 {
			t.Errorf("lost: %v", b.lost)
		}
		if l := b.made["eth0"]; l == nil || l.outer == 0 {
			t.Fatalf("made: %+v", b.made)
		}
		if err := before(b, "eth0"); err != nil {
			t.Error(err)
		}
		if err := b.tie(); err != nil {
			return err
		}
		is, err := readNamespace(to, true, nil)
		if err != nil {
			return err
		}
		for _, l := range is.Link {
			if l.Name == "eth0" {
				if l.To != "br0" || l.Outer != "mig0" {
					t.Errorf("it is tied to %q by %q", l.To, l.Outer)
				}
				l.Outer = "outer0"
			}
		}
		compare(t, was, is)
		return nil
	})
}

// before the commit the outer end is no port.
func before(b *builder, name string) error {
	l, err := b.host.LinkByIndex(b.made[name].outer)
	if err == nil && l.Master != 0 {
		err = errors.New("it is a port of its bridge before the commit")
	}
	return err
}

// settledRead reads when IPv6 uses its addresses. These are the original's, which
// the kernel tests: it waits up to a second, by chance, before it asks, and then
// another one for an answer (router_solicitation_delay and retrans_time_ms), so the
// patience of a copy, which tests none, is not enough for them.
func settledRead(ns *os.File) (*state.Network, error) {
	b := &builder{}
	var err error
	if b.in, err = netns.Open(ns); err != nil {
		return nil, err
	}
	defer b.in.Close()
	for range 3 {
		if err = b.settle(); err == nil {
			return readNamespace(ns, true, nil)
		}
	}
	return nil, err
}

// through is what an image makes of it.
func through(t *testing.T, n *state.Network) *state.Network {
	t.Helper()
	b, err := marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	n, err = decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// compare tells the differences of two namespaces.
func compare(t *testing.T, was, is *state.Network) {
	t.Helper()
	if len(was.Link) != len(is.Link) {
		t.Errorf("%d interfaces, were %d", len(is.Link), len(was.Link))
	}
	for i := range min(len(was.Link), len(is.Link)) {
		if !proto.Equal(was.Link[i], is.Link[i]) {
			t.Errorf("interface\n%v, was\n%v", is.Link[i], was.Link[i])
		}
	}
	have := messages(is)
	for c, field := range messages(was) {
		c := netns.Category(c)
		a, b := describeAll(c, *field), describeAll(c, *have[c])
		for s := range a {
			if b[s] == 0 {
				t.Errorf("missing: %s %s", c, s)
			}
		}
		for s := range b {
			if a[s] == 0 {
				t.Errorf("too much: %s %s", c, s)
			}
		}
	}
	settings := map[string]string{}
	for _, s := range is.Setting {
		settings[s.Name] = s.Value
	}
	for _, s := range was.Setting {
		if settings[s.Name] != s.Value {
			t.Errorf("%s is %q, was %q", s.Name, settings[s.Name], s.Value)
		}
	}
	if len(was.Setting) < 100 {
		t.Errorf("only %d settings", len(was.Setting))
	}
}

func describeAll(c netns.Category, list [][]byte) map[string]int {
	m := map[string]int{}
	for _, b := range list {
		m[fmt.Sprintf("%s %x", netns.Describe(c, b), netns.Key(c, b))]++
	}
	return m
}

// TestForgedNetwork: an image gets no interface, and no address, that the request
// does not give, and ties nothing to what it names itself.
func TestForgedNetwork(t *testing.T) {
	kerneltest.InNetwork(t, func() error {
		from := newNamespace(t)
		err := errors.Join(attach(from, "outer0"), in(from, "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up"), sh("ip link add other type bridge"))
		if err != nil {
			return err
		}
		honest, err := settledRead(from)
		if err != nil {
			return err
		}
		mac := ""
		for _, l := range honest.Link {
			if l.Name == "eth0" {
				mac = fromMessage(l).Address.String()
			}
		}
		given := func() *network.Request {
			r := &network.Request{Own: true, Interfaces: []network.Interface{{Name: "eth0", Kind: "veth", To: "br0", MAC: mac}}}
			for _, b := range honest.Address {
				if a, err := netns.ParseAddress(b); err == nil && a.Index == 7 {
					r.Interfaces[0].Addresses = append(r.Interfaces[0].Addresses, a.Prefix)
				}
			}
			return r
		}
		for want, forge := range map[string]func(n *state.Network, r *network.Request){
			"": func(*state.Network, *network.Request) {},
			"the address 10.9.0.2/24 on interface eth0, which the request does not give": func(_ *state.Network, r *network.Request) {
				r.Interfaces[0].Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.3/24")}
			},
			"which the request does not give": func(n *state.Network, r *network.Request) { r.Interfaces = nil },
			"of kind macvlan": func(n *state.Network, r *network.Request) {
				for _, l := range n.Link {
					if l.Name == "eth0" {
						l.Kind = "macvlan"
					}
				}
			},
			"there is no bridge br9": func(n *state.Network, r *network.Request) { r.Interfaces[0].To = "br9" },
		} {
			n, r := proto.CloneOf(honest), given()
			forge(n, r)
			for _, l := range n.Link {
				if l.To != "" {
					l.To = "other" // what the image says does not count
				}
			}
			to := newNamespace(t)
			b, err := newBuilder(to, r, nil)
			if err != nil {
				return err
			}
			err = b.build(through(t, n))
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%q: %v", want, err)
			}
			if want == "" {
				_ = b.tie()
				if back, err := readNamespace(to, false, nil); err != nil || back.Link[1].To != "br0" {
					t.Errorf("tied to %v, %v", back, err)
				}
			}
			if err := b.undo(); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
}

// TestMappedAddress: the copy has another address, and what was said of the old
// one is said of it.
func TestMappedAddress(t *testing.T) {
	kerneltest.InNetwork(t, func() error {
		from, to := newNamespace(t), newNamespace(t)
		err := errors.Join(attach(from, "outer0"), in(from, `ip link set eth0 up
ip addr add 10.9.0.2/24 brd + dev eth0
ip route add default via 10.9.0.1 src 10.9.0.2
ip rule add from 10.9.0.2 table 100 priority 500`))
		if err != nil {
			return err
		}
		n, err := settledRead(from)
		if err != nil {
			return err
		}
		m, err := network.ParseMapping("10.9.0.2=10.9.0.77")
		if err != nil {
			return err
		}
		b, err := newBuilder(to, nil, m)
		if err != nil {
			return err
		}
		b.rebuild = true
		if err := b.build(through(t, n)); err != nil {
			return err
		}
		var out []byte
		err = inside(to, func() (err error) {
			out, err = exec.Command("sh", "-ec", "ip -4 addr show dev eth0; ip route; ip rule").CombinedOutput()
			return err
		})
		for _, want := range []string{"inet 10.9.0.77/24", "src 10.9.0.77", "from 10.9.0.77 lookup 100"} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("there is no %q in\n%s", want, out)
			}
		}
		if bytes.Contains(out, []byte("10.9.0.2")) {
			t.Errorf("the old address is still there:\n%s", out)
		}
		return err
	})
}

// TestMacvlanIsSilent: a macvlan is made on the interface of the same name, and
// says and hears nothing before the commit, when its addresses are announced.
func TestMacvlanIsSilent(t *testing.T) {
	kerneltest.InNetwork(t, func() error {
		from, to := newNamespace(t), newNamespace(t)
		wire := newNamespace(t) // where the other end of the host's cable is
		h, err := netns.Open(nil)
		if err != nil {
			return err
		}
		defer h.Close()
		err = errors.Join(
			h.MakeVeth(wire, &netns.Link{Name: "far", Kind: netns.KindVeth, Index: 3}, "up0"), sh("ip link set up0 up"),
			in(wire, "ip link set far up; ip addr add 10.8.0.1/24 dev far"),
		)
		if err != nil {
			return err
		}
		up, err := h.Link("up0")
		if err != nil {
			return err
		}
		if err := h.MakeMacvlan(from, &netns.Link{Name: "mv0", Kind: netns.KindMacvlan, Mode: 4}, up.Index); err != nil {
			return err
		}
		if err := in(from, "ip addr add 10.8.0.2/24 dev mv0; ip link set mv0 up; ip route add default via 10.8.0.1"); err != nil {
			return err
		}
		n, err := settledRead(from)
		if err != nil {
			return err
		}
		if err := in(from, "ip link del mv0"); err != nil { // the original's end
			return err
		}
		b, err := newBuilder(to, nil, nil)
		if err != nil {
			return err
		}
		b.rebuild = true
		if err := b.build(through(t, n)); err != nil {
			return err
		}
		const ask = "busybox ping -c1 -W1 10.8.0.2 >/dev/null"
		if in(wire, ask) == nil {
			t.Error("it is heard before the commit")
		}
		if err := in(wire, "ip neigh flush dev far"); err != nil {
			return err
		}
		if err := b.tie(); err != nil {
			return err
		}
		if err := in(wire, ask); err != nil {
			t.Errorf("it is not heard after the commit: %v", err)
		}
		is, err := readNamespace(to, true, nil)
		if err != nil {
			return err
		}
		n.Neighbour, is.Neighbour = nil, nil // it has learnt who asked
		compare(t, n, is)
		return nil
	})
}

// TestGuard: a bridge does not believe an interface that is put into it, until the
// guard is lifted; what was there before is heard.
func TestGuard(t *testing.T) {
	kerneltest.InNetwork(t, func() error {
		asking, old := newNamespace(t), newNamespace(t)
		err := errors.Join(
			attach(asking, "outer0"), in(asking, "ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up"),
			attach(old, "outer1"), in(old, "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up"),
		)
		if err != nil {
			return err
		}
		fresh := newNamespace(t)
		r := &network.Request{Guard: "test", Interfaces: []network.Interface{{
			Name: "eth0", Kind: network.CNI, MAC: "02:00:00:00:00:77",
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/24"), netip.MustParsePrefix("10.9.0.2/24")},
		}}}
		Guard(r, nil)
		err = errors.Join(attach(fresh, "outer2"), in(fresh, "ip link set eth0 address 02:00:00:00:00:77; ip addr add 10.9.0.3/24 dev eth0; ip link set eth0 up"))
		if err != nil {
			return err
		}
		ask := func(ip string) error {
			return in(asking, "ip neigh flush dev eth0; busybox ping -c1 -W1 "+ip+" >/dev/null")
		}
		if err := ask("10.9.0.2"); err != nil {
			t.Errorf("who was there before is not heard: %v", err)
		}
		if ask("10.9.0.3") == nil {
			t.Error("the guarded one is heard")
		}
		if err := errors.Join(Unguard("test"), Unguard("test")); err != nil {
			t.Error(err)
		}
		if err := ask("10.9.0.3"); err != nil {
			t.Errorf("it is not heard when the guard is lifted: %v", err)
		}
		return nil
	})
}
