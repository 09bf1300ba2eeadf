// SPDX-License-Identifier: Apache-2.0

// Package metrics reads a cgroup's counters in the form that containerd's
// clients expect: the Metrics messages of containerd/cgroups, version 1 or 2.
package metrics

import (
	"fmt"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"google.golang.org/protobuf/proto"
)

// Source is the cgroup of one container.
type Source interface {
	// Stat is io.containerd.cgroups.v1.Metrics or ...v2.Metrics.
	Stat() (proto.Message, error)
}

// ForProcess is the cgroup that pid is in now.
func ForProcess(pid int) (Source, error) {
	if cgroups.Mode() == cgroups.Unified {
		path, err := cgroup2.PidGroupPath(pid)
		if err != nil {
			return nil, fmt.Errorf("cgroup of process %d: %w", pid, err)
		}
		m, err := cgroup2.Load(path)
		if err != nil {
			return nil, fmt.Errorf("cgroup %s: %w", path, err)
		}
		return unified{m}, nil
	}
	cg, err := cgroup1.Load(cgroup1.PidPath(pid))
	if err != nil {
		return nil, fmt.Errorf("cgroup of process %d: %w", pid, err)
	}
	return legacy{cg}, nil
}

type legacy struct{ cg cgroup1.Cgroup }

func (l legacy) Stat() (proto.Message, error) { return l.cg.Stat(cgroup1.IgnoreNotExist) }

type unified struct{ m *cgroup2.Manager }

func (u unified) Stat() (proto.Message, error) { return u.m.Stat() }
