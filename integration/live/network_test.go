// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/nerdctl"
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
	all = append(all, image.Redis.Name, id, "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--unixsocket", "/run/redis.sock")
	// On the host, since ctr itself has plug-ins run.
	ctr := h.d.CtrCommand(w.t.Context(), all...)
	cmd := h.Command(w.t.Context(), ctr.Path, ctr.Args[1:]...)
	cmd.Dir = ctr.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %v: %s", ctr.Args, err, out)
	}
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
	pid, err := strconv.Atoi(h.pid(id))
	if err == nil {
		err = h.Wire(pid, "to-"+id, ip)
	}
	if err != nil {
		w.t.Fatal(err)
	}
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

// networkContent shows what of a container's network has to be the same on both hosts.
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
	w.thereAndBack(id, ip, networkContent, func(from, _ *host) { w.noInterface(from, "to-"+id) })
}

// thereAndBack moves a Redis from alpha to beta and back. Each time it has what it
// was told, it is only there, and a script says the same of its network; moved looks
// at the rest.
func (w *world) thereAndBack(id, ip, content string, moved func(from, to *host)) {
	w.t.Helper()
	w.answers(ip, "SET", "key", "value")
	was := w.alpha.inNetwork(w.t, id, content)
	from, to := w.alpha, w.beta
	for range 2 {
		w.mustMove(from, id, to.IP)
		if got := w.answers(ip, "GET", "key"); got != "value" {
			w.t.Fatalf("on %s it says %q", to.Name, got)
		}
		if is := to.inNetwork(w.t, id, content); is != was {
			w.t.Errorf("on %s:\n%s\nwas:\n%s", to.Name, is, was)
		}
		w.one(id, to, from)
		moved(from, to)
		from, to = to, from
	}
}

// released checks that CNI has given a container's address away where it has moved
// to, and nothing any more where it was, but for what others have there.
func (w *world) released(ip, others string, from, to *host) {
	w.t.Helper()
	if l := from.leases(); l != others {
		w.t.Errorf("%s still has %s", from.Name, l)
	}
	if l := to.leases(); !strings.Contains(l, ip) {
		w.t.Errorf("%s has %s", to.Name, l)
	}
	if n := from.veths(w.t); n != 0 {
		w.t.Errorf("%s has %d interfaces of containers", from.Name, n)
	}
}

// noInterface waits until nothing is left of a container's interface on a host.
func (w *world) noInterface(h *host, name string) {
	w.t.Helper()
	waitFor(w.t, 10*time.Second, name+" has gone from "+h.Name, func() bool {
		return exec.Command("nsenter", append(h.Enter()[1:], "ip", "link", "show", name)...).Run() != nil
	})
}

// newCNIWorld makes hosts with a CNI network "fleet" on their bridges, with
// directories of their own for configurations, plug-ins and leases.
func newCNIWorld(t *testing.T) *world {
	t.Helper()
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		t.Skip("hack/deps.sh installs the CNI plug-ins: ", err)
	}
	w := newWorld(t, daemon.V24, image.Redis)
	w.bridged()
	for _, h := range []*host{w.alpha, w.beta} {
		err := h.Run(`for d in /etc/cni /opt/cni /var/lib/cni; do mkdir -p $d; mount -t tmpfs tmpfs $d; done
mkdir -p /etc/cni/net.d /opt/cni/bin; cp /usr/lib/cni/* /opt/cni/bin/
cat >/etc/cni/net.d/10-fleet.conflist <<'X'
{"cniVersion":"0.4.0","name":"fleet","plugins":[{"type":"bridge","bridge":"br0","ipam":{"type":"host-local",
 "ranges":[[{"subnet":"10.77.0.0/24","rangeStart":"10.77.0.100","rangeEnd":"10.77.0.120"}]],"routes":[{"dst":"0.0.0.0/0","gw":"10.77.0.1"}]}}]}
X`)
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// leases are the addresses that CNI has given away on a host.
func (h *host) leases() string {
	var out strings.Builder
	cmd := h.Command(context.Background(), "sh", "-c", "ls /var/lib/cni/networks/fleet 2>/dev/null | grep '^10' || true; ls /var/lib/cni/results 2>/dev/null || true")
	cmd.Stdout = &out
	_ = cmd.Run()
	return strings.TrimSpace(out.String())
}

// veths counts the ports of containers on a host's bridge.
func (h *host) veths(t *testing.T) int {
	t.Helper()
	out, err := h.Command(t.Context(), "sh", "-c", "ip -o link show type veth | grep -vc ' eth0@' || true").Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// interfaceContent shows that of an interface that CNI has made.
const interfaceContent = "ip -o link show eth0 | sed 's/.*ether//; s/ brd.*//'; ip -o -4 addr show dev eth0; ip route"

// TestCNIMoves: a container that ctr has had CNI connect is connected by the other
// host's CNI, with the same address, and nothing is left where it was.
func TestCNIMoves(t *testing.T) {
	w := newCNIWorld(t)
	const id, ip = "cni", "10.77.0.100"
	w.serve(w.alpha, id, "--cni")
	w.reached(ip)
	w.thereAndBack(id, ip, interfaceContent, func(from, to *host) { w.released(ip, "", from, to) })
	from, to := w.alpha, w.beta
	for name, c := range map[string]struct{ script, warning string }{
		"the source's plug-in fails": {`echo '{"cniVersion":"0.4.0","code":99,"msg":"no screwdriver"}'; exit 1`, "no screwdriver"},
		"the source's plug-in hangs": {"exec sleep 1000", "took longer than 2s"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := from.Run(`printf '%s\n' '#!/bin/sh' '[ "$CNI_COMMAND" = DEL ] || exec /usr/lib/cni/bridge' ` + "'" + strings.ReplaceAll(c.script, "'", `'\''`) + `' >/opt/cni/bin/bridge`); err != nil {
				t.Fatal(err)
			}
			r := w.mustMove(from, id, to.IP, "--cni-timeout", "2s")
			if said := strings.Join(r.Warnings, "\n"); !strings.Contains(said, c.warning) || !strings.Contains(said, "CNI network fleet") {
				t.Errorf("it warns of %q", said)
			}
			if got := w.answers(ip, "GET", "key"); got != "value" {
				t.Fatalf("on %s it says %q", to.Name, got)
			}
			w.one(id, to, from)
			// By hand, as the warning asks for it.
			if err := from.Run("cp /usr/lib/cni/bridge /opt/cni/bin/bridge; rm -rf /var/lib/cni/networks/fleet /var/lib/cni/results"); err != nil {
				t.Fatal(err)
			}
			from, to = to, from
		})
	}
	t.Run("the address is taken", func(t *testing.T) {
		if err := to.Run("mkdir -p /var/lib/cni/networks/fleet && echo somebody >/var/lib/cni/networks/fleet/" + ip); err != nil {
			t.Fatal(err)
		}
		w.refused(from, "10.77.0.100", id, to.IP)
		w.undisturbed(t, id, ip, from, to)
		if err := to.Run("rm /var/lib/cni/networks/fleet/" + ip); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the plug-in fails", func(t *testing.T) {
		if err := to.Run(`cat >/opt/cni/bin/bridge <<'X'
#!/bin/sh
echo '{"cniVersion":"0.4.0","code":99,"msg":"out of cable"}'
exit 1
X`); err != nil {
			t.Fatal(err)
		}
		w.refused(from, "out of cable", id, to.IP)
		w.undisturbed(t, id, ip, from, to)
	})
	t.Run("the plug-in hangs", func(t *testing.T) {
		if err := to.migd.stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		to.migd = w.startMigd(to, "--cni-timeout", "2s")
		if err := to.Run("printf '#!/bin/sh\nexec sleep 1000\n' >/opt/cni/bin/bridge"); err != nil {
			t.Fatal(err)
		}
		w.refused(from, "its plug-ins took longer than 2s", id, to.IP)
		w.undisturbed(t, id, ip, from, to)
	})
	t.Run("the plug-in is missing", func(t *testing.T) {
		if err := to.Run("rm /opt/cni/bin/bridge"); err != nil {
			t.Fatal(err)
		}
		w.refused(from, "there is no plug-in bridge", id, to.IP)
		w.undisturbed(t, id, ip, from, to)
	})
	t.Run("the network is not configured", func(t *testing.T) {
		if err := to.Run("rm /etc/cni/net.d/*"); err != nil {
			t.Fatal(err)
		}
		w.refused(from, "interface eth0 of the CNI network fleet", id, to.IP)
		w.undisturbed(t, id, ip, from, to)
	})
}

// TestHooksMove: a container whose own hooks have CNI connect it, as nerdctl's do,
// keeps its address, though nobody has asked for it when it was made: on the other
// host the hooks are told to ask for it. mig's daemon needs no configuration there.
func TestHooksMove(t *testing.T) {
	w := newCNIWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n, err := nerdctl.Dial(w.alpha.d.Address, w.alpha.d.Namespace, w.alpha.d.Snapshotter)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	const id, ip = "hooked", "10.77.0.101"
	t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
	// alpha's next address is another one than beta's.
	if err := w.alpha.Run("mkdir -p /var/lib/cni/networks/fleet && echo somebody >/var/lib/cni/networks/fleet/10.77.0.100"); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{nerdctl.Networks: `["fleet"]`}
	command := oci.WithProcessArgs("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")
	if err := n.Run(t.Context(), itest.Mig, image.Redis.Name, id, labels, nerdctl.WithHooks(self), command); err != nil {
		t.Fatal(err)
	}
	w.reached(ip)
	others := map[*host]string{w.alpha: "10.77.0.100"}
	w.thereAndBack(id, ip, interfaceContent, func(from, to *host) { w.released(ip, others[from], from, to) })
	from, to := w.alpha, w.beta
	if r := w.alpha.d.Must(t, "containers", "info", id); strings.Contains(r.Stdout, "nerdctl/ip") {
		t.Errorf("its annotations are others: %s", r.Stdout)
	}
	// Where the address is not free the hook fails, and the move with it.
	if err := to.Run("mkdir -p /var/lib/cni/networks/fleet && echo somebody >/var/lib/cni/networks/fleet/" + ip); err != nil {
		t.Fatal(err)
	}
	w.refused(from, ip, id, to.IP)
	w.undisturbed(t, id, ip, from, to)
}

// undisturbed checks that a container goes on and that nothing of its network is
// on the other host.
func (w *world) undisturbed(t *testing.T, id, ip string, on, off *host) {
	t.Helper()
	if got := w.answers(ip, "GET", "key"); got != "value" {
		t.Errorf("on %s it says %q", on.Name, got)
	}
	waitFor(t, 10*time.Second, "no interface is left on "+off.Name, func() bool { return off.veths(t) == 0 })
	if out, err := off.Command(t.Context(), "nft", "list", "tables").CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("%s has tables of nf_tables: %s %v", off.Name, out, err)
	}
	if l := off.leases(); l != "" && !strings.HasPrefix(l, ip) {
		t.Errorf("%s has %s", off.Name, l)
	}
}

// TestMapIP: the copy has another address, on which the server listens that was
// bound to the old one; a connection that would have to change is refused by name.
func TestMapIP(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	w.bridged()
	const id, ip, other = "mapped", "10.77.0.51", "10.77.0.52"
	w.serve(w.alpha, id)
	w.wire(w.alpha, id, ip)
	w.reached(ip)
	w.answers(ip, "SET", "key", "value")
	// From here on it listens on the one address only, and on the loopback.
	w.answers(ip, "CONFIG", "SET", "bind", ip+" 127.0.0.1")
	client := w.client.Command(t.Context(), "redis-cli", "-h", ip, "SUBSCRIBE", "news")
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 10*time.Second, "a client is connected", func() bool { return strings.Contains(w.answers(ip, "CLIENT", "LIST"), "cmd=subscribe") })
	w.refused(w.alpha, "is to change (map-ip)", id, w.beta.IP, "--map-ip", ip+"="+other, "--tcp", "keep")
	if err := client.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = client.Wait()
	waitFor(t, 10*time.Second, "it has gone", func() bool { return !strings.Contains(w.answers(ip, "CLIENT", "LIST"), "cmd=subscribe") })
	w.mustMove(w.alpha, id, w.beta.IP, "--map-ip", ip+"="+other)
	if got := w.answers(other, "GET", "key"); got != "value" {
		t.Errorf("at its new address it says %q", got)
	}
	if out := w.beta.inNetwork(t, id, "ip addr; ip route show table all"); strings.Contains(out, ip+"/") || strings.Contains(out, ip+" ") {
		t.Errorf("the old address is still there:\n%s", out)
	}
	// And back: what was chosen for the move here says nothing about that one, and what
	// it has no more cannot be changed again.
	w.refused(w.beta, "no interface of the container has the address "+ip, id, w.alpha.IP, "--map-ip", ip+"="+other)
	w.mustMove(w.beta, id, w.alpha.IP, "--map-ip", other+"="+ip)
	if got := w.answers(ip, "GET", "key"); got != "value" {
		t.Errorf("back at its old address it says %q", got)
	}
}

// TestNetworkIsLookedFor: what the other host's network cannot give is named
// before anything is touched.
func TestNetworkIsLookedFor(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	if err := w.alpha.Bridge(); err != nil {
		t.Fatal(err)
	}
	const id, ip = "looked", "10.77.0.53"
	w.serve(w.alpha, id)
	w.wire(w.alpha, id, ip)
	w.reached(ip)
	w.answers(ip, "SET", "key", "value")
	w.refused(w.alpha, "there is no bridge br0 on this host", id, w.beta.IP)
	if err := w.beta.Bridge(); err != nil {
		t.Fatal(err)
	}
	// A third host has the address, too, which nobody has noticed yet.
	if err := w.client.Run("ip addr add " + ip + "/32 dev lo"); err != nil {
		t.Fatal(err)
	}
	w.refused(w.alpha, "address "+ip+" of interface eth0", id, w.beta.IP)
	if err := w.client.Run("ip addr del " + ip + "/32 dev lo"); err != nil {
		t.Fatal(err)
	}
	if err := w.beta.Run("ip addr add " + ip + "/32 dev lo"); err != nil {
		t.Fatal(err)
	}
	w.refused(w.alpha, "this host has it itself", id, w.beta.IP)
	if err := w.beta.Run("ip addr del " + ip + "/32 dev lo"); err != nil {
		t.Fatal(err)
	}
	w.undisturbed(t, id, ip, w.alpha, w.beta)
	w.alpha.inNetwork(t, id, "ip tuntap add tap0 mode tap; ip link set tap0 up")
	w.refused(w.alpha, "interfaces of kind tun are not made again", id, w.beta.IP)
	w.alpha.inNetwork(t, id, "ip link del tap0")
	w.mustMove(w.alpha, id, w.beta.IP)
	if got := w.answers(ip, "GET", "key"); got != "value" {
		t.Errorf("it says %q", got)
	}
}

// killEngines kills the engines of a host's moves.
func (h *host) killEngines() (killed int) {
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.Pid()))
	files, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, f := range files {
		dir := filepath.Dir(f)
		exe, _ := os.Readlink(f)
		net, _ := os.Readlink(filepath.Join(dir, "ns/net"))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && filepath.Base(exe) == "mig-engine" && net == own && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// TestNetworkSurvivesDeaths: an engine of either side, or the destination's migd,
// is killed at any moment of a move. The container is reached at its address, on
// one host, and CNI has given nothing away on the other.
func TestNetworkSurvivesDeaths(t *testing.T) {
	w := newCNIWorld(t)
	const id, ip = "mortal", "10.77.0.100"
	w.serve(w.alpha, id, "--cni")
	w.reached(ip)
	w.answers(ip, "SET", "key", "value")
	within := w.warmUp(id)
	on, off := w.alpha, w.beta
	victims := map[string]func() int{
		"the source's engine":      func() int { return on.killEngines() },
		"the destination's engine": func() int { return off.killEngines() },
		"the destination's migd": func() int {
			if err := off.migd.stop(syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			off.migd = w.startMigd(off)
			return 1
		},
	}
	for range max(2, kills()/2) {
		for who, kill := range victims {
			done := make(chan error, 1)
			from, to := on, off
			go func() {
				_, err := from.move(context.Background(), id, to.IP)
				done <- err
			}()
			time.Sleep(rand.N(within)) // the moment is the point
			killed := kill()
			var err error
			for ended := false; !ended; {
				select {
				case err = <-done:
					ended = true
				case <-time.After(2 * time.Millisecond):
					if killed == 0 { // it had not begun yet
						killed = kill()
					}
				}
			}
			on, off = w.alone(id)
			moved := on == to
			t.Logf("%s (%d killed): moved %v, %v", who, killed, moved, err)
			if moved && err != nil {
				off.d.Remove(id) // what the coordinator was not told to remove
				if err := off.Run("rm -rf /var/lib/cni/networks/fleet /var/lib/cni/results"); err != nil {
					t.Fatal(err)
				}
			}
			w.reached(ip)
			w.undisturbed(t, id, ip, on, off)
		}
	}
	w.mustMove(on, id, off.IP)
	w.undisturbed(t, id, ip, off, on)
}

// alone waits until a container runs on one host and nothing of a move is left on
// the other.
func (w *world) alone(id string) (on, off *host) {
	w.t.Helper()
	pair := [2]*host{w.alpha, w.beta}
	waitFor(w.t, settleWithin, "one copy, and nothing else", func() bool {
		for i := range pair {
			on, off = pair[i], pair[1-i]
			// Who runs is asked last: an original may be ended while the others are asked.
			if off.status(id) != "RUNNING" && !on.onItsWay() && !off.onItsWay() && on.status(id) == "RUNNING" {
				return true
			}
		}
		return false
	})
	return on, off
}

// TestOtherNetworks: a namespace that is given by its path is looked for with its
// addresses; nothing of the host's goes along, which is said.
func TestOtherNetworks(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	w.bridged()
	const ip = "10.77.0.60"
	namespace := func(h *host, address string) {
		t.Helper()
		if err := h.Run(`ip netns add shop; ip link add to-shop type veth peer name eth0 netns shop; ip link set to-shop master br0 up
ip -n shop link set lo up; ip -n shop addr add ` + address + `/24 dev eth0; ip -n shop link set eth0 up`); err != nil {
			t.Fatal(err)
		}
	}
	namespace(w.alpha, ip)
	w.serve(w.alpha, "joined", "--with-ns", "network:/run/netns/shop")
	w.reached(ip)
	w.answers(ip, "SET", "key", "value")
	w.refused(w.alpha, "/run/netns/shop", "joined", w.beta.IP)
	namespace(w.beta, "10.77.0.61")
	w.refused(w.alpha, "lacks the address "+ip, "joined", w.beta.IP)
	if got := w.answers(ip, "GET", "key"); got != "value" {
		t.Fatalf("it says %q", got)
	}
	if err := errors.Join(w.beta.Run("ip -n shop link set eth0 down; ip -n shop addr add " + ip + "/24 dev eth0")); err != nil {
		t.Fatal(err)
	}
	w.mustMove(w.alpha, "joined", w.beta.IP)
	if err := errors.Join(w.alpha.Run("ip -n shop link set eth0 down"), w.beta.Run("ip -n shop link set eth0 up")); err != nil {
		t.Fatal(err)
	}
	// Whose namespaces they are would announce the other hardware address.
	if err := w.client.Run("ip neigh flush dev eth0"); err != nil {
		t.Fatal(err)
	}
	w.reached(ip)
	if got := w.answers(ip, "GET", "key"); got != "value" {
		t.Errorf("it says %q", got)
	}
	w.serve(w.alpha, "host", "--net-host")
	r := w.mustMove(w.alpha, "host", w.beta.IP)
	if !strings.Contains(strings.Join(r.Warnings, "\n"), "nothing of it goes along") {
		t.Errorf("it warns of %q", r.Warnings)
	}
}
