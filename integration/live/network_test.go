// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// bridged gives the hosts of containers bridges.
func (w *world) bridged() {
	w.t.Helper()
	for _, h := range []*host{w.alpha, w.beta} {
		if err := h.Bridge(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// serve runs a Redis that listens on all its addresses, in a network namespace of
// its own.
func (w *world) serve(h *host, id string, args ...string) {
	w.t.Helper()
	all := append([]string{"run", "--detach", "--null-io", "--snapshotter", h.d.Snapshotter, "--runtime", "io.mig.v1"}, args...)
	h.d.Must(w.t, append(all, image.Redis.Name, id, "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--unixsocket", "/run/redis.sock")...)
	w.t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
}

// inNetwork runs a script in the network of a container.
func (h *host) inNetwork(t *testing.T, id, script string) string {
	t.Helper()
	out, err := exec.Command("nsenter", "--target", h.pid(id), "--net", "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: in the network of %s: %s: %v: %s", h.Name, id, script, err, out)
	}
	return string(out)
}

// wire puts a container on its host's bridge, as a person does with ip(8).
func (w *world) wire(h *host, id, ip string) {
	w.t.Helper()
	script := fmt.Sprintf("ip link add %s type veth peer name eth0 netns %s && ip link set %[1]s master br0 up", "to-"+id, h.pid(id))
	if err := h.Run(script); err != nil {
		w.t.Fatal(err)
	}
	h.inNetwork(w.t, id, fmt.Sprintf(`ip addr add %s/24 brd + dev eth0; ip link set eth0 up; ip route add default via 10.77.0.1`, ip))
}

// answers tells what a Redis says to the client's host.
func (w *world) answers(ip string, words ...string) string {
	w.t.Helper()
	out, err := w.client.Command(w.t.Context(), "timeout", append([]string{"5", "redis-cli", "-h", ip}, words...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// reached waits until a server answers the client's host.
func (w *world) reached(ip string) {
	w.t.Helper()
	said := ""
	defer func() { w.t.Logf("%s says %q", ip, said) }()
	waitFor(w.t, 20*time.Second, ip+" answers", func() bool { said = w.answers(ip, "PING"); return said == "PONG" })
}

// content is what of a container's network has to be the same on both hosts.
const networkContent = `ip -o link show eth0 | sed 's/@[^:]*//; s/qdisc.*group/group/; s/ state [A-Z]*//; s/link-netnsid.*//'
ip -o addr; ip route show table all; ip -6 route show table all; ip rule; ip neigh show nud permanent; sysctl net.ipv4.tcp_keepalive_time net.ipv4.conf.eth0.arp_ignore`

// TestNetworkMoves: a container whose interface somebody has put in with ip(8) has
// the same network on the other host, and back, and a client of a third host
// reaches it at the same address at once.
func TestNetworkMoves(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	w.bridged()
	const id, ip = "wired", "10.77.0.50"
	w.serve(w.alpha, id)
	w.wire(w.alpha, id, ip)
	w.alpha.inNetwork(t, id, `ip addr add fd77::50/64 dev eth0 nodad; ip route add 10.99.0.0/16 via 10.77.0.13; ip rule add from 10.99.0.1 table 77
ip neigh add 10.77.0.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent; sysctl -qw net.ipv4.tcp_keepalive_time=333 net.ipv4.conf.eth0.arp_ignore=1`)
	w.reached(ip)
	waitFor(t, 10*time.Second, "IPv6 uses its addresses", func() bool {
		return !strings.Contains(w.alpha.inNetwork(t, id, "ip -6 addr"), "tentative")
	})
	w.answers(ip, "SET", "key", "value")
	was := w.alpha.inNetwork(t, id, networkContent)
	from, to := w.alpha, w.beta
	for range 2 {
		w.mustMove(from, id, to.IP)
		if got := w.answers(ip, "GET", "key"); got != "value" {
			t.Fatalf("on %s it says %q", to.Name, got)
		}
		if is := to.inNetwork(t, id, networkContent); is != was {
			t.Errorf("on %s:\n%s\nwas:\n%s", to.Name, is, was)
		}
		w.one(id, to, from)
		w.noInterface(from, "to-"+id)
		from, to = to, from
	}
}

// noInterface waits until nothing is left of a container's interface on a host.
func (w *world) noInterface(h *host, name string) {
	w.t.Helper()
	waitFor(w.t, 10*time.Second, name+" has gone from "+h.Name, func() bool {
		return exec.Command("nsenter", append(h.Enter()[1:], "ip", "link", "show", name)...).Run() != nil
	})
}
