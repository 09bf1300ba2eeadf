// SPDX-License-Identifier: Apache-2.0

package host

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/spec/network"
)

func TestNerdctlIsAskedForTheSameAddresses(t *testing.T) {
	eth0 := network.Interface{Name: "eth0", Kind: network.CNI, To: "bridge", MAC: "02:00:00:00:00:01", Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.4.0.7/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("fd00::7/64"),
	}}
	one := &network.Request{Own: true, Interfaces: []network.Interface{{Name: "dummy0", Kind: network.Dummy}, eth0}}
	two := &network.Request{Own: true, Interfaces: []network.Interface{eth0, {Name: "eth1", Kind: network.CNI, To: "other"}}}
	nerdctl := map[string]string{nerdctlNetworks: `["bridge"]`}
	wanted := map[string]string{nerdctlNetworks: `["bridge"]`, nerdctlIP: "10.4.0.7", nerdctlIP6: "fd00::7", nerdctlMAC: "02:00:00:00:00:01"}
	asked := maps.Clone(wanted)
	elsewhere := maps.Clone(wanted)
	elsewhere[nerdctlIP] = "10.5.0.7"
	for name, c := range map[string]struct {
		is, want map[string]string
		r        *network.Request
		policies map[string]string
		added    []string
	}{
		"nerdctl's":         {nerdctl, wanted, one, nil, []string{nerdctlIP, nerdctlIP6, nerdctlMAC}},
		"asked for already": {asked, wanted, one, nil, nil},
		"other addresses":   {asked, elsewhere, one, map[string]string{policy.MapIP: "10.4.0.7=10.5.0.7"}, nil},
		"two networks":      {nerdctl, nerdctl, two, nil, nil},
		"no network":        {nerdctl, nerdctl, nil, nil, nil},
		"not nerdctl's":     {map[string]string{"x": "y"}, map[string]string{"x": "y"}, one, nil, nil},
	} {
		a := maps.Clone(c.is)
		if added := askHooks(a, c.r, c.policies); !slices.Equal(added, c.added) || !maps.Equal(a, c.want) {
			t.Errorf("%s: %v are added: %v", name, added, a)
		}
	}
	for raw, want := range map[string]bool{`{}`: false, `{"hooks":{}}`: false, `{"hooks":{"poststop":[]}}`: true, `x`: false} {
		if HasHooks([]byte(raw)) != want {
			t.Errorf("%s: hooks: %v", raw, !want)
		}
	}
}
