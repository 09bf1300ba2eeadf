// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/kernel/network"
	"github.com/io-mig/mig/layers/request/job"
	conversation "github.com/io-mig/mig/layers/request/peer"
	request "github.com/io-mig/mig/spec/network"
)

// Network says what the copy of a job's container needs of the other host's
// network; nil where nothing of it goes along.
func Network(j *job.Job) (*request.Request, error) {
	spec, err := loadSpec(j)
	if err != nil {
		return nil, err
	}
	own := ownNamespace(spec, specs.NetworkNamespace)
	if !own && !joins(spec, specs.NetworkNamespace) {
		return nil, nil // the host's
	}
	return network.Describe(j.InitPid, own, j.Options)
}

// ConsiderNetwork names why this host cannot give a container its network.
func ConsiderNetwork(r *request.Request, policies map[string]string) ([]conversation.Mismatch, error) {
	m, err := request.ParseMapping(policies[request.OptionMap])
	if err != nil {
		return nil, err
	}
	list, err := network.Consider(r, m)
	var out []conversation.Mismatch
	for _, x := range list {
		out = append(out, conversation.Mismatch{What: x.What, Why: x.Why, Remedy: x.Remedy})
	}
	return out, err
}

// GuardNetwork is network.Guard, for a daemon.
func GuardNetwork(r *request.Request, policies map[string]string) error {
	m, err := request.ParseMapping(policies[request.OptionMap])
	if err == nil {
		network.Guard(r, m)
	}
	return err
}

// UnguardNetwork ends it, if nobody has.
func UnguardNetwork(name string) error { return network.Unguard(name) }

// UnplugNetwork removes what was made of it for a move that has come to nothing.
func UnplugNetwork(move string) error { return network.Unplug(move) }
