// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const remedyFrozen = "thaw it before the checkpoint"

// Preflight names what of the cgroups below the container's own is not carried.
func (s *Subsystem) Preflight(context.Context) ([]record.Finding, error) {
	trees, err := s.trees()
	if err != nil {
		return []record.Finding{s.finding("cgroups below the container's own", err.Error(), "", false)}, nil
	}
	var out []record.Finding
	for _, t := range trees {
		made, err := s.made(t)
		if err != nil {
			return nil, fmt.Errorf("cgroup: %w", err)
		}
		if len(t.frozen) > 0 {
			out = append(out, s.finding(fmt.Sprintf("frozen cgroup %s in %s", t.frozen[0], t.place),
				"its processes cannot be stopped one by one", remedyFrozen, false))
		}
		switch {
		case !made:
			out = append(out, s.finding(fmt.Sprintf("%d cgroups below the container's own in %s", len(t.Cgroup), t.place),
				"the container's specification does not let it make any, so they are another's: a restored container has none, and its processes are in its own",
				"mount a cgroup without the option ro, if they are the container's", true))
		case len(t.lost) > 0:
			out = append(out, s.finding(fmt.Sprintf("%d settings of cgroups in %s, as %s", len(t.lost), t.place, t.lost[0]),
				"they name devices or processors of this host: a restored container has none of them", "", true))
		}
	}
	return out, nil
}

func (s *Subsystem) finding(what, why, remedy string, warning bool) record.Finding {
	return record.Finding{Pid: s.env.Source.Init, FD: -1, Subsystem: Name, What: what, Why: why, Remedy: remedy, Warning: warning}
}

// made: what is below the container's own cgroup can be the container's work.
func (s *Subsystem) made(t *tree) (bool, error) {
	src := s.env.Source
	why, err := mayMake(t.place, &src.Files, src.Allowed, procfs.Host().Process(src.Init))
	return why == "", err
}

// mayMake says why a container may make no cgroups below its own at p; "" if it
// may. The specification that is not known allows all.
func mayMake(p *place, files *target.Files, a *target.Allowed, init procfs.Task) (why string, err error) {
	if !Needed(files) {
		return "its specification mounts no cgroup without the option ro", nil
	}
	uid, gid, err := target.Owner(init, &p.stat)
	if err != nil {
		return "", err
	}
	host, _, ok, err := target.HostOwner(init, uid, gid)
	if err != nil {
		return "", err
	}
	switch {
	case !ok || host != p.stat.Uid:
		return "its cgroup belongs to a user that it does not have", nil
	case a != nil && !a.AnyUser() && a.UID != uid:
		return fmt.Sprintf("its cgroup belongs to user %d, which its user %d cannot become", uid, a.UID), nil
	}
	return "", nil
}

// allowed refuses what the new container could not make by itself, or this host
// cannot.
func (s *Subsystem) allowed(h *state.Hierarchy) error {
	f := s.env.Frame
	p, err := find(h, f.Cgroups)
	if err != nil {
		return err
	}
	why, err := mayMake(p, &f.Files, &f.Allowed, procfs.Host().Process(f.Init))
	if err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("the image has cgroups below the container's own in %s, and this container may make none: %s", p, why)
	}
	if p.v2 {
		if err := available(p.dir, h.SubtreeControl); err != nil {
			return fmt.Errorf("the container's own cgroup: %w", err)
		}
	}
	if f.Allowed.AnyUser() {
		return nil
	}
	for _, c := range h.Cgroup {
		for _, o := range append([]*state.CgroupFile{{Uid: c.Uid, Gid: c.Gid}}, c.File...) {
			if o.Uid != f.Allowed.UID || o.Gid != f.Allowed.GID && !slices.Contains(f.Allowed.Groups, o.Gid) {
				return fmt.Errorf("cgroup %q belongs to %d:%d, which the container's user %d cannot give it to", c.Name, o.Uid, o.Gid, f.Allowed.UID)
			}
		}
	}
	return nil
}

// find is the container's own cgroup in the hierarchy that an image names.
func find(h *state.Hierarchy, cgroups map[string]string) (*place, error) {
	list, err := places(cgroups)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p.v2 == (len(h.Controller) == 0) && within(h.Controller, p.controllers) && !p.root() {
			return p, nil
		}
	}
	var here []string
	for _, p := range list {
		here = append(here, p.String())
	}
	return nil, fmt.Errorf("the container has made cgroups in %s, and on this host there is none such: there are %s",
		hierarchy(h.Controller), strings.Join(here, "; "))
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
