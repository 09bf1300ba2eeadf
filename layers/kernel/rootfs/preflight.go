// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/io-mig/mig/layers/kernel/filetree"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// maxNames bounds the files that a finding names, maxFindings those of one tree:
// a person needs to know some, not all.
const (
	maxNames    = 4
	maxFindings = 16
)

// Preflight names files that cannot be carried.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	drop, err := dropTmpfs(s.env)
	if err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	init := procfs.Host().Process(s.env.Source.Init).Still() // its ids are read for each tree
	out, err := s.inspect(ctx, init, drop)
	if procfs.IsGone(err) {
		return nil, nil // it has ended: there is nothing to lose any more
	}
	if err != nil {
		return nil, fmt.Errorf("rootfs: pid %d: %w", init.Pid(), err)
	}
	return out, ctx.Err()
}

func (s *Subsystem) inspect(ctx context.Context, init procfs.Task, drop bool) ([]record.Finding, error) {
	mounts, err := init.Mountinfo()
	if err != nil {
		return nil, err
	}
	host, err := target.HostDevices()
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for _, m := range ownTmpfses(mounts, host) {
		found, err := s.inspectTmpfs(ctx, init, m, drop)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Target, err)
		}
		out = append(out, found...)
	}
	found, err := s.inspectMounts(init, mounts, host)
	if err != nil {
		return nil, err
	}
	out = append(out, found...)
	if !s.env.Source.Files.Moves {
		return out, nil
	}
	found, err = s.inspectMoving(ctx, init)
	return append(out, found...), err
}

// inspectMounts names mounts that the container made and that cannot be made
// again.
func (s *Subsystem) inspectMounts(init procfs.Task, mounts []procfs.Mount, host map[procfs.Dev]bool) ([]record.Finding, error) {
	list, missing, err := made(init, mounts, host, &s.env.Source.Files)
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for i := range list {
		m := &list[i]
		_, err := describe(init.Pid(), mounts, host, m)
		var r *refusal
		if errors.As(err, &r) {
			out = append(out, r.finding())
			continue
		}
		if err != nil {
			return nil, err
		}
		if a := s.env.Source.Allowed; a != nil && !a.Mounts() {
			out = append(out, (&refusal{describeMount(m), "it was made while the container ran, by somebody who may more than its spec lets the container do (CAP_SYS_ADMIN)", "unmount it"}).finding())
		}
	}
	for _, at := range missing {
		out = append(out, record.Finding{
			FD: -1, Subsystem: Name, Warning: true, What: "mount point " + at,
			Why: "what the container's spec mounts there was unmounted while it ran; the restored container has it again",
		})
	}
	return out, nil
}

// inspectTmpfs goes through one memory file system as the export will.
func (s *Subsystem) inspectTmpfs(ctx context.Context, init procfs.Task, m procfs.Mount, drop bool) ([]record.Finding, error) {
	root, err := s.openTmpfs(m)
	if err != nil || root == nil {
		return nil, err
	}
	o, err := s.exportOptions(init, m.Target)
	if err != nil {
		return nil, err
	}
	var dropped []string
	if drop {
		keep := &openFiles{dev: m.Dev.Stat(), dropped: func(p string) { dropped = append(dropped, path.Join(m.Target, p)) }}
		if err := keep.look(s.env.Source); err != nil {
			return nil, err
		}
		o.Keep = keep.has
	}
	out, err := s.look(ctx, root, o, func(p string) string { return m.FSType + " " + m.Target + ": " + path.Join(m.Target, p) })
	if err != nil {
		return nil, err
	}
	if len(dropped) > 0 {
		out = append(out, lost(m, dropped))
	}
	return out, nil
}

// look goes through a tree without reading it and names what is refused.
func (s *Subsystem) look(ctx context.Context, root *os.File, o filetree.ExportOptions, name func(string) string) ([]record.Finding, error) {
	var out []record.Finding
	o.Look = true
	o.Refuse = func(r *filetree.Refusal) error {
		if len(out) < maxFindings {
			out = append(out, record.Finding{FD: -1, Subsystem: Name, What: name(r.Path), Why: r.Why, Remedy: r.Remedy})
		}
		return nil
	}
	_, err := filetree.NewExporter(int(root.Fd()), o).Pass(ctx, false, func(*state.TreeItem) error { return nil })
	return out, err
}

// lost warns of what TmpfsDrop leaves out.
func lost(m procfs.Mount, names []string) record.Finding {
	text := strings.Join(names[:min(len(names), maxNames)], ", ")
	if more := len(names) - maxNames; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return record.Finding{
		FD: -1, Subsystem: Name, Warning: true, What: m.FSType + " " + m.Target + " holds " + text,
		Why:    "with " + OptionTmpfs + "=" + TmpfsDrop + ", files that nobody has open or maps are left out",
		Remedy: "choose " + OptionTmpfs + "=" + TmpfsCarry,
	}
}
