// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"

	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/spec/network"
)

// Annotations of nerdctl: the networks that its hooks have CNI connect a container
// to, and what a person has asked for by --ip, --ip6 and --mac-address.
const (
	nerdctlNetworks = "nerdctl/networks"
	nerdctlIP       = "nerdctl/ip"
	nerdctlIP6      = "nerdctl/ip6"
	nerdctlMAC      = "nerdctl/mac-address"
)

// HasHooks reports whether a spec has programs of its own run when its container
// is made.
func HasHooks(raw []byte) bool {
	var spec struct{ Hooks map[string]json.RawMessage }
	return json.Unmarshal(raw, &spec) == nil && len(spec.Hooks) > 0
}

// askHooks has nerdctl's hooks ask for the addresses that the container has, by the
// annotations in which a person would have. It returns those that were not there. A
// hook asks all of a container's networks for the same, so it works with one.
func askHooks(a map[string]string, r *network.Request, policies map[string]string) (added []string) {
	mapping, err := network.ParseMapping(policies[policy.MapIP])
	n := onlyCNI(r)
	if a[nerdctlNetworks] == "" || n == nil || err != nil { // the latter is refused elsewhere
		return nil
	}
	set := func(key, value string) {
		if a[key] == "" {
			added = append(added, key)
		}
		a[key] = value
	}
	for _, p := range n.Addresses {
		switch to := mapping.Of(p.Addr()); {
		case to.IsLinkLocalUnicast():
		case to.Is4():
			set(nerdctlIP, to.String())
		default:
			set(nerdctlIP6, to.String())
		}
	}
	if n.MAC != "" {
		set(nerdctlMAC, n.MAC)
	}
	return added
}

// onlyCNI is the one interface that CNI makes; nil if there are others, or none.
func onlyCNI(r *network.Request) (found *network.Interface) {
	if r == nil {
		return nil
	}
	for i := range r.Interfaces {
		if r.Interfaces[i].Kind != network.CNI {
			continue
		}
		if found != nil {
			return nil
		}
		found = &r.Interfaces[i]
	}
	return found
}
