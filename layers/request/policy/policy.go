// SPDX-License-Identifier: Apache-2.0

// Package policy names what a person may choose for one checkpoint, restore or
// move. A container's annotations choose the same for all of them (io.mig/NAME);
// what they say comes first.
package policy

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/io-mig/mig/spec/network"
)

// Names of the policies. The subsystems that obey say what they mean: rootfs,
// socket; package target for exec, package spec/network for the network.
const (
	CopyVolume    = "copy-volume"
	SharedVolume  = "shared-volume"
	VolumeContent = "volume-content"
	RootfsBase    = "rootfs-base"
	Tmpfs         = "tmpfs"
	TCP           = "tcp"
	Exec          = "exec"
	Network       = network.Option
	MapIP         = network.OptionMap
	CNI           = network.OptionCNI
	// What an application with an agent is given: the shim obeys.
	AgentTimeout = "agent-timeout"
	AgentForce   = "agent-force"
	// Watchdog is how long nothing may advance, a duration: the engine obeys.
	Watchdog = "watchdog"
)

var known = []string{CopyVolume, SharedVolume, VolumeContent, RootfsBase, Tmpfs, TCP, Exec, Network, MapIP, CNI, AgentTimeout, AgentForce, Watchdog}

// Names are all policies.
func Names() []string { return slices.Clone(known) }

// maxValue bounds a policy's value, in bytes.
const maxValue = 4096

// Valid refuses policies that nobody knows: a misspelt one must not be dropped.
func Valid(p map[string]string) error {
	for name, value := range p {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no policy %q (there are %s)", name, strings.Join(known, ", "))
		}
		if value == "" || len(value) > maxValue {
			return fmt.Errorf("policy %s: a value of %d bytes, allowed are 1 to %d", name, len(value), maxValue)
		}
	}
	return nil
}

// Encode writes policies as one string, the same for the same policies.
func Encode(p map[string]string) string {
	v := url.Values{}
	for name, value := range p {
		v.Set(name, value)
	}
	return v.Encode()
}

// Decode reads what Encode has written.
func Decode(s string) (map[string]string, error) {
	v, err := url.ParseQuery(s)
	if err != nil {
		return nil, fmt.Errorf("policies %q: %w", s, err)
	}
	p := map[string]string{}
	for name, values := range v {
		if len(values) != 1 {
			return nil, fmt.Errorf("policy %s comes %d times", name, len(values))
		}
		p[name] = values[0]
	}
	return p, Valid(p)
}

// Add puts policies beside those that are chosen already, which stay.
func Add(to map[string]string, p map[string]string) map[string]string {
	all := maps.Clone(p)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, to)
	return all
}
