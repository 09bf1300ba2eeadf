// SPDX-License-Identifier: Apache-2.0

package network

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netns"
	"github.com/io-mig/mig/spec/state"
)

// sample is a namespace as an image has it.
func sample() *state.Network {
	return &state.Network{
		Link: []*state.NetworkLink{{Index: 1, Name: "lo", Kind: "loopback"}, {Index: 2, Name: "eth0", Kind: "veth", To: "br0", Address: []byte{2, 0, 0, 0, 0, 1}}},
		// 10.0.0.1/24 on interface 2, and a route by it.
		Address:   [][]byte{{2, 24, 0, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1}},
		Route:     [][]byte{{2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 1, 0, 8, 0, 4, 0, 2, 0, 0, 0}},
		Setting:   []*state.NetworkSetting{{Name: "ipv4/ip_forward", Value: "1"}},
		Netfilter: []*state.NetfilterChange{{Kind: 0, Family: 2, Attributes: []byte{8, 0, 1, 0, 'f', 0, 0, 0}}},
	}
}

// TestDecodeRefuses: what no export writes is refused, and by name.
func TestDecodeRefuses(t *testing.T) {
	for want, forge := range map[string]func(n *state.Network){
		"":                                     func(*state.Network) {},
		"it comes twice":                       func(n *state.Network) { n.Link[1].Name = "lo"; n.Link[1].Kind = "loopback" },
		"no names of interfaces":               func(n *state.Network) { n.Link[1].Name = "../eth0" },
		"which is not made":                    func(n *state.Network) { n.Link[1].Kind = "tun" },
		"interface eth0 is of the kind":        func(n *state.Network) { n.Link[1].Kind = "loopback" },
		"an alias of":                          func(n *state.Network) { n.Link[1].Alias = strings.Repeat("x", 300) },
		"names an interface that is not there": func(n *state.Network) { n.Address[0][4] = 9 },
		"message 0 of category address":        func(n *state.Network) { n.Address[0] = n.Address[0][:6] },
		"an address of":                        func(n *state.Network) { n.Address[0][1] = 200 },
		"message 0 of category route":          func(n *state.Network) { n.Route[0][20] = 200 },
		"is no setting":                        func(n *state.Network) { n.Setting[0].Name = "../kernel/core_pattern" },
		"\"core/../../vm/x\" is no setting":    func(n *state.Network) { n.Setting[0].Name = "core/../../vm/x" },
		"a change of kind 99":                  func(n *state.Network) { n.Netfilter[0].Kind = 99 },
		"of kind 1024":                         func(n *state.Network) { n.Netfilter[0].Kind = 1024 },
		"more than the limits": func(n *state.Network) {
			n.Link = make([]*state.NetworkLink, maxLinks+1)
			for i := range n.Link {
				n.Link[i] = &state.NetworkLink{}
			}
		},
	} {
		n := sample()
		forge(n)
		b, err := proto.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		_, err = decode(b)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// FuzzDecode: whatever an image says is refused or can be walked through.
func FuzzDecode(f *testing.F) {
	b, err := proto.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decode(b)
		if err != nil {
			return
		}
		for c, field := range messages(n) {
			for _, body := range *field {
				_ = netns.Describe(netns.Category(c), body)
				if renumber(netns.Category(c), body, indices(n.Link)) != nil {
					t.Fatalf("%x names what is not there", body)
				}
			}
		}
	})
}
