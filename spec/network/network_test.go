// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestMapping(t *testing.T) {
	m, err := ParseMapping("10.0.0.1=10.0.0.2, fd00::1=fd00::2")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"10.0.0.1": "10.0.0.2", "fd00::1": "fd00::2", "10.0.0.3": "10.0.0.3"} {
		if got := m.Of(netip.MustParseAddr(from)); got != netip.MustParseAddr(to) {
			t.Errorf("%s becomes %s", from, got)
		}
	}
	for _, bad := range []string{"10.0.0.1", "10.0.0.1=x", "10.0.0.1=fd00::1", "10.0.0.1=10.0.0.2,10.0.0.1=10.0.0.3", "fe80::1%eth0=fe80::2"} {
		if _, err := ParseMapping(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCNI(t *testing.T) {
	m, err := ParseCNI("eth0=fleet,eth1=other.net")
	if err != nil || m["eth0"] != "fleet" || EncodeCNI(m) != "eth0=fleet,eth1=other.net" {
		t.Errorf("%v, %v", m, err)
	}
	for _, bad := range []string{"eth0", "eth0=", "eth0=../x", "a/b=fleet", "eth0=a,eth0=b"} {
		if _, err := ParseCNI(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestRequestIsChecked: what a peer says is valid, or refused by name.
func TestRequestIsChecked(t *testing.T) {
	good := Request{Own: true, Interfaces: []Interface{
		{Name: "eth0", Kind: Veth, To: "br0", Outer: "veth1", MAC: "02:00:00:00:00:01", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		{Name: "eth1", Kind: CNI, To: "a-network-with-a-long-name"},
	}}
	text, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(text)
	if err != nil || len(back.Interfaces) != 2 || !back.CNI() || !back.Find("eth0").Has(netip.MustParseAddr("10.0.0.1")) {
		t.Errorf("%+v, %v", back, err)
	}
	for want, edit := range map[string]func(n *Interface){
		"no name":     func(n *Interface) { n.To = "a/b" },
		"comes twice": func(n *Interface) { n.Name = "eth1"; n.Kind = CNI },
		"no address":  func(n *Interface) { n.Addresses = []netip.Prefix{{}} },
		"address x":   func(n *Interface) { n.MAC = "x" },
	} {
		r := Request{Interfaces: []Interface{good.Interfaces[0], good.Interfaces[1]}}
		edit(&r.Interfaces[0])
		if err := r.Valid(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := Decode(strings.Repeat(" ", MaxEncoded+1)); err == nil {
		t.Error("a request without end is taken")
	}
}
