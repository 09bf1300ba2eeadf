// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// mountFlags are the options of a mount, as mountinfo shows them, that are
// carried; any other one is refused.
var mountFlags = map[string]uint64{
	"rw": 0, "ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"relatime": unix.MS_RELATIME, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
	"nosymfollow": unix.MS_NOSYMFOLLOW,
}

// allMountFlags are all of them.
const allMountFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC |
	unix.MS_RELATIME | unix.MS_STRICTATIME | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_NOSYMFOLLOW

// plainTypes are file systems that are made anew without any state, by whoever
// may mount them.
var plainTypes = []string{"proc", "sysfs", "mqueue"}

// limitsOf are the options of memory file systems, by their types, that are carried.
// The owner travels with the root directory.
var limitsOf = map[string][]string{
	"tmpfs":  {"size", "nr_blocks", "nr_inodes", "mode"},
	hugeType: {"size", "min_size", "nr_inodes", "mode", "pagesize"},
}

// describe says how a mount that the container made is made again, or refuses
// it.
func describe(pid int, mounts []procfs.Mount, host map[procfs.Dev]bool, m *procfs.Mount) (*state.Mount, error) {
	no := func(why string) (*state.Mount, error) {
		return nil, &refusal{describeMount(m), why, "unmount it, or have the container's spec mount it"}
	}
	msg := &state.Mount{Target: []byte(m.Target), Source: []byte(m.Source)}
	for _, o := range m.Options {
		f, ok := mountFlags[o]
		if !ok {
			return no("it was made while the container ran, with the option " + o + ", which is not carried")
		}
		msg.Flags |= f
	}
	if msg.Flags&(unix.MS_NOATIME|unix.MS_RELATIME) == 0 {
		msg.Flags |= unix.MS_STRICTATIME // which is not shown
	}
	for _, o := range mounts {
		if o.ID == m.Parent && o.Target == m.Target && slices.Contains(memoryTypes, o.FSType) && !host[o.Dev] {
			return no("it was made while the container ran, and hides a memory file system whose files nobody can get at")
		}
	}
	if from, ok := bindSource(pid, mounts, m); ok {
		msg.From = []byte(from)
		return msg, nil
	}
	switch {
	case hidden(mounts, *m):
		return no("it was made while the container ran, and another one hides it")
	case limitsOf[m.FSType] != nil && m.Root == "/" && !host[m.Dev]:
		msg.Type = m.FSType
		var limits []string
		for _, o := range m.SuperOptions {
			if name, _, _ := strings.Cut(o, "="); slices.Contains(limitsOf[m.FSType], name) {
				limits = append(limits, o)
			}
		}
		msg.Data = []byte(strings.Join(limits, ","))
		return msg, nil
	case slices.Contains(plainTypes, m.FSType) && m.Root == "/":
		msg.Type = m.FSType
		return msg, nil
	case host[m.Dev]:
		return no("it was made while the container ran, from outside of it")
	}
	return no("it was made while the container ran, and file systems of this type are not carried")
}

// checkMount refuses what no exporter sends.
func checkMount(m *state.Mount) error {
	if err := target.CheckPath("mount point", string(m.Target)); err != nil {
		return err
	}
	if m.Flags&^allMountFlags != 0 || len(m.Source) > 4096 || slices.Contains(m.Source, 0) {
		return fmt.Errorf("flags %#x, a source of %d bytes", m.Flags, len(m.Source))
	}
	switch {
	case m.Type == "":
		return target.CheckPath("source of a bind mount", string(m.From))
	case limitsOf[m.Type] != nil:
		for o := range strings.SplitSeq(string(m.Data), ",") {
			name, value, _ := strings.Cut(o, "=")
			if _, err := strconv.ParseUint(strings.TrimRight(value, "kmgKMG"), 10, 64); o != "" && (err != nil || !slices.Contains(limitsOf[m.Type], name)) {
				return fmt.Errorf("option %.100q of a %s", o, m.Type)
			}
		}
		return nil
	case slices.Contains(plainTypes, m.Type) && len(m.Data) == 0:
		return nil
	}
	return fmt.Errorf("file system %.100q", m.Type)
}

// receiveMount makes a mount again, if the live spec lets the container make it.
// The container does so itself: what it mounts is what it could.
func (s *Subsystem) receiveMount(r *record.Record) error {
	m := &state.Mount{}
	if err := errors.Join(proto.Unmarshal(r.Payload, m), checkMount(m)); err != nil {
		return fmt.Errorf("%w: %s: %w", errImage, r.Header, err)
	}
	if s.in.mounts++; r.Entity != s.in.mounts || s.in.mounts > maxTrees {
		return fmt.Errorf("%w: %s: mounts are numbered in their order, up to %d", errImage, r.Header, maxTrees)
	}
	at := string(m.Target)
	if !s.env.Frame.Allowed.Mounts() {
		return fmt.Errorf("%s: the container's spec does not let it mount anything (CAP_SYS_ADMIN)", at)
	}
	if err := s.mount(m); err != nil {
		return fmt.Errorf("mount on %s: %w", at, err)
	}
	for _, t := range s.in.trees {
		if rest, ok := strings.CutPrefix(at, strings.TrimSuffix(t.path, "/")+"/"); ok {
			t.in.Protect(rest)
		}
	}
	s.in.remounts = append(s.in.remounts, m)
	return nil
}

func (s *Subsystem) mount(m *state.Mount) error {
	t := s.env.Frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return fmt.Errorf("process %d: %w", target.FirstTask, target.ErrNotStopped)
	}
	p := t.Plan()
	at, none := p.PutString(string(m.Target)), uint64(0)
	if m.Type == "" {
		p.Call(tracer.Syscall(unix.SYS_MOUNT, p.PutString(string(m.From)), at, none, unix.MS_BIND, none))
	} else {
		p.Call(tracer.Syscall(unix.SYS_MOUNT, p.PutString(string(m.Source)), at, p.PutString(m.Type), 0, p.PutString(string(m.Data))))
	}
	return p.Run()
}

// remount sets the options of mounts when all that belongs there is there.
func (s *Subsystem) remount() error {
	list := s.in.remounts
	s.in.remounts = nil
	if len(list) == 0 {
		return nil
	}
	t := s.env.Frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return fmt.Errorf("process %d: %w", target.FirstTask, target.ErrNotStopped)
	}
	for _, m := range list {
		p := t.Plan()
		p.Call(tracer.Syscall(unix.SYS_MOUNT, 0, p.PutString(string(m.Target)), 0, unix.MS_REMOUNT|unix.MS_BIND|m.Flags, 0))
		if err := p.Run(); err != nil {
			return fmt.Errorf("set the options of the mount on %s: %w", m.Target, err)
		}
	}
	return nil
}
