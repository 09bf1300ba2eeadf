// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

const rules = `
table inet shop {
	counter visits { packets 7 bytes 900 }
	quota daily { over 25 mbytes used 3 mbytes }
	set friends { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.1.1 } }
	set banned { type ipv4_addr; flags dynamic,timeout; timeout 1h; elements = { 1.2.3.4 timeout 50m } }
	set pairs { type ipv4_addr . inet_service; elements = { 10.0.0.1 . 80, 10.0.0.2 . 443 } }
	map doors { type inet_service : verdict; elements = { 80 : accept, 22 : jump guard } }
	chain guard { ip saddr @friends counter packets 3 bytes 180 accept; limit rate 5/second burst 9 packets accept; log prefix "no: " drop; }
	chain in {
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		tcp dport vmap @doors
		tcp dport { 8080, 9090-9099 } counter name "visits" accept comment "open"
		ip saddr . tcp dport @pairs drop
		meta iifname "eth0" add @banned { ip saddr timeout 10m } drop
		iif lo accept
	}
	chain out { type filter hook output priority 10; policy drop; oifname "lo" accept; meta skuid 33 quota name "daily" drop; accept; }
}
table ip  shopnat {
	chain post { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
	chain pre { type nat hook prerouting priority dstnat; tcp dport 81 redirect to :80; }
}
table arp a { chain c { type filter hook input priority 0; arp operation reply accept; }; }
`

// ruleset is what nft and the iptables show of a namespace.
func ruleset(ns *os.File) (string, error) {
	var out []byte
	err := inside(ns, func() (err error) {
		out, err = exec.Command("sh", "-ec", "nft list ruleset; iptables-legacy-save -t filter; iptables-legacy-save -t nat; ip6tables-legacy-save").CombinedOutput()
		return err
	})
	// Time goes on, and there are comments with the hour.
	volatile := regexp.MustCompile(`(?m)expires [0-9hms]+|^#.*$|\[[0-9]+:[0-9]+\]`)
	return volatile.ReplaceAllString(string(out), ""), err
}

// TestRulesAreMadeAgain: tables of nf_tables with sets, maps, objects and
// stateful rules, those of iptables-nft and those of the older iptables are shown
// by their tools as before.
func TestRulesAreMadeAgain(t *testing.T) {
	for _, tool := range []string{"nft", "iptables-legacy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("hack/deps.sh installs nftables and iptables: ", err)
		}
	}
	kerneltest.InNetwork(t, func() error {
		from, to := newNamespace(t), newNamespace(t)
		err := errors.Join(attach(from, "outer0"), in(from, "ip link set lo up; ip link set eth0 up; nft -f - <<'X'\n"+rules+"X\n"),
			in(from, `iptables-nft -t mangle -A PREROUTING -p tcp --dport 99 -m conntrack --ctstate NEW -j MARK --set-mark 5
iptables-legacy -A INPUT -p tcp -m tcp --dport 25 -m limit --limit 3/min -j REJECT --reject-with tcp-reset
iptables-legacy -N mine; iptables-legacy -A INPUT -i eth0 -j mine; iptables-legacy -A mine -m comment --comment "well" -j DROP
iptables-legacy -P FORWARD DROP; iptables-legacy -t nat -A POSTROUTING -o eth0 -j MASQUERADE
ip6tables-legacy -A OUTPUT -d 2001:db8::/32 -j DROP`))
		if err != nil {
			return err
		}
		was, err := ruleset(from)
		if err != nil {
			return err
		}
		n, err := settledRead(from)
		if err != nil {
			return err
		}
		if len(n.Netfilter) < 20 || len(n.Table) < 3 {
			t.Errorf("read: %s", summary(n))
		}
		b, err := newBuilder(to, nil, nil)
		if err != nil {
			return err
		}
		b.rebuild = true
		for range 2 {
			b.last = nil // and again in the place of what is there
			if err := b.build(through(t, n)); err != nil {
				return err
			}
		}
		is, err := ruleset(to)
		if err != nil {
			return err
		}
		if is != was {
			t.Errorf("rules:\n%s\nwere:\n%s", is, was)
		}
		return nil
	})
}
