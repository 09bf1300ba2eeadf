// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"

	"github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names what of the namespace cannot be made again.
func (s *Subsystem) Preflight(context.Context) ([]record.Finding, error) {
	src := s.env.Source
	if _, err := network.ParseMapping(s.env.Options[network.OptionMap]); err != nil {
		return []record.Finding{s.finding(network.OptionMap, err.Error(), "OLD=NEW[,OLD=NEW]", false)}, nil
	}
	if _, err := network.ParseCNI(s.env.Options[network.OptionCNI]); err != nil {
		return []record.Finding{s.finding(network.OptionCNI, err.Error(), "INTERFACE=NETWORK[,INTERFACE=NETWORK]", false)}, nil
	}
	switch {
	case s.leaves():
		return nil, nil
	case src.HostNet && src.Files.Moves:
		return []record.Finding{s.finding("the host's network", "it is not the container's: nothing of it goes along, and the copy has that of the other host", "", true)}, nil
	case !src.OwnNet:
		return nil, nil
	}
	ns, err := open(src.Init)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	defer ns.Close()
	links, err := readLinks(ns, s.cni())
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	var out []record.Finding
	for i := range links {
		if l := &links[i]; !l.carried() && !l.idle {
			out = append(out, s.finding("interface "+l.Name, l.problem,
				fmt.Sprintf("%s=%s leaves interfaces to whoever makes the copy's", network.Option, network.Leave), !src.Files.Moves))
		}
	}
	return out, nil
}

func (s *Subsystem) finding(what, why, remedy string, warning bool) record.Finding {
	return record.Finding{Pid: s.env.Source.Init, FD: -1, Subsystem: Name, What: what, Why: why, Remedy: remedy, Warning: warning}
}
