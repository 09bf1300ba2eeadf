// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// slotsPerRecord keeps a part of a table far below record.MaxPayload.
const slotsPerRecord = 16384

// export is one process on its way out.
type export struct {
	contents []content // of nameless files, not exported yet
}

// Checkpoint exports a process: everything but contents with the first residual
// step, those with it and the following ones.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual {
		return record.Progress{Done: true}, nil
	}
	if step.Process == record.Shared {
		if err := s.findStdio(); err != nil {
			return record.Progress{}, fmt.Errorf("file: %w", err)
		}
		return record.Progress{Done: true}, nil
	}
	p, err := s.env.Source.Stopped(step.Process)
	if err != nil {
		return record.Progress{}, fmt.Errorf("file: %w", err)
	}
	s.mu.Lock()
	e := s.exports[step.Process]
	s.mu.Unlock()
	var done record.Progress
	if e == nil {
		var err error
		if e, done.Entities, err = s.exportTable(ctx, p, out); err != nil {
			return record.Progress{}, fmt.Errorf("file: pid %d: %w", p.Pid, err)
		}
		s.mu.Lock()
		s.exports[step.Process] = e
		s.mu.Unlock()
	}
	n, err := s.exportContents(ctx, e, out)
	if err != nil {
		return record.Progress{}, fmt.Errorf("file: pid %d: %w", p.Pid, err)
	}
	done.Done, done.Advanced, done.Bytes = len(e.contents) == 0, true, n
	return done, nil
}

// exportTable pushes the table, what belongs to the process beside it, and the
// descriptions that nobody has seen before.
func (s *Subsystem) exportTable(ctx context.Context, p *target.Process, out record.Sink) (*export, uint64, error) {
	list, err := p.Descriptors()
	if err != nil {
		return nil, 0, err
	}
	own := inTable(list, 0)
	if p.SharesTable() {
		own = nil // it is another's, and so are the locks
	}
	if err := pushTable(ctx, record.Header{Process: p.ID, Kind: KindTable}, own, out); err != nil {
		return nil, 0, err
	}
	l, err := newLooker(p.Proc, s.env.Source.Init, &s.mounts)
	if err != nil {
		return nil, 0, err
	}
	working, err := l.working()
	if err != nil {
		return nil, 0, err
	}
	if err := push(ctx, out, record.Header{Process: p.ID, Kind: KindWorking}, working); err != nil {
		return nil, 0, err
	}
	if err := pushThreads(ctx, p, l, list, out); err != nil {
		return nil, 0, err
	}
	e, n := &export{}, uint64(0)
	for i := range list {
		d := &list[i]
		if !d.First {
			continue
		}
		if err := s.exportOwner(ctx, p, d, out); err != nil {
			return nil, 0, fmt.Errorf("fd %d: %w", d.FD, err)
		}
		if d.Owner() != target.OwnerFile {
			continue
		}
		if err := s.exportOpen(ctx, p, l, d, e, out); err != nil {
			return nil, 0, fmt.Errorf("fd %d: %w", d.FD, err)
		}
		n++
	}
	s.entities.Add(n)
	return e, n, nil
}

// pushThreads sends what threads have of their own.
func pushThreads(ctx context.Context, p *target.Process, l *looker, list []target.Descriptor, out record.Sink) error {
	apart, err := p.Apart()
	if err != nil || len(apart) == 0 {
		return err
	}
	threads, tables := firsts(apart)
	ids := map[int]int{}
	for _, th := range p.Traced.Threads() {
		ids[th.Tid] = th.NSTid
	}
	for _, tid := range threads {
		msg, err := l.workingOf(tid)
		if err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
		if err := push(ctx, out, record.Header{Process: p.ID, Kind: KindWorking, Entity: uint64(ids[tid])}, msg); err != nil {
			return err
		}
	}
	return pushThreadTables(ctx, p, ids, tables, list, out)
}

// pushTable sends a table in parts; the entity of each says where it begins.
func pushTable(ctx context.Context, of record.Header, list []target.Descriptor, out record.Sink) error {
	posix, err := posixLocks(list)
	if err != nil {
		return err
	}
	for first := true; first || len(list) > 0; first = false {
		part := list[:min(len(list), slotsPerRecord)]
		list = list[len(part):]
		msg := &state.DescriptorTable{Slot: make([]*state.DescriptorSlot, len(part))}
		for i := range part {
			d := &part[i]
			msg.Slot[i] = &state.DescriptorSlot{Fd: uint32(d.FD), Description: d.Description, CloseOnExec: d.CloseOnExec}
		}
		if first {
			msg.PosixLock = posix
		}
		h := of
		if len(part) > 0 {
			h.Entity |= uint64(part[0].FD)
		}
		if err := push(ctx, out, h, msg); err != nil {
			return err
		}
	}
	return nil
}

// exportOpen pushes one description.
func (s *Subsystem) exportOpen(ctx context.Context, p *target.Process, l *looker, d *target.Descriptor, e *export, out record.Sink) error {
	f, err := l.classify(d)
	if err != nil {
		return err
	}
	if f.msg.Type == state.FileType_FILE_TYPE_STDIO {
		f.msg.Reopened = s.reopened(d)
	} else if err := fileLocks(d, f.msg); err != nil {
		return err
	}
	if f.object != nil {
		if f.msg.Object, err = s.exportObject(ctx, p, d, f.object, e, out); err != nil {
			return err
		}
	}
	return push(ctx, out, record.Header{Kind: KindOpen, Entity: d.Description}, f.msg)
}

// findStdio decides which descriptions are those that the shim handed over. Of
// each standard stream it is the first one that is seen, the init's lowest
// descriptor; others were opened by way of /dev/stdout and have flags of their
// own. A terminal is one description behind all three streams, unless opened
// again.
func (s *Subsystem) findStdio() error {
	for _, p := range s.env.Source.Processes() {
		if p.Traced == nil {
			return fmt.Errorf("process %d: %w", p.ID, target.ErrNotStopped)
		}
		list, err := p.Descriptors()
		if err != nil {
			return err
		}
		for i := range list {
			d := &list[i]
			id := fileID{d.Stat.Dev, d.Stat.Ino}
			if s.stdio[id] == 0 && d.Stdio >= 0 && d.Flags&unix.O_PATH == 0 {
				s.stdio[id] = d.Description
			}
		}
	}
	return nil
}

// reopened: the description is not the one that the shim handed over.
func (s *Subsystem) reopened(d *target.Descriptor) bool {
	return s.stdio[fileID{d.Stat.Dev, d.Stat.Ino}] != d.Description
}

// push sends one message.
func push(ctx context.Context, out record.Sink, h record.Header, m proto.Message) error {
	h.Subsystem = Name
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", h, err)
	}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}

// working describes the current directory, the root and the umask.
func (l *looker) working() (*state.WorkingFiles, error) {
	st, err := l.proc.Status()
	if err != nil {
		return nil, err
	}
	if st.Umask < 0 {
		return nil, fmt.Errorf("the umask is not shown: the process has ended: %w", unix.ESRCH)
	}
	msg := &state.WorkingFiles{Umask: uint32(st.Umask)}
	if msg.Cwd, err = l.directory("cwd", l.proc.Cwd); err != nil {
		return nil, err
	}
	if msg.Root, err = l.directory("root", l.proc.Root); err != nil {
		return nil, err
	}
	return msg, nil
}

// directory resolves cwd or root: it must be there when the copy is made.
func (l *looker) directory(name string, link func() (procfs.FDLink, error)) (string, error) {
	k, err := link()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(l.proc.Path(name), &st); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	path, gone, err := l.pathOf(&target.Descriptor{Link: k, Stat: st})
	if err != nil {
		var r *refusal
		if name == "root" && errors.As(err, &r) && k.Path == "/" {
			return "/", nil // the root directory as every process of the container has it
		}
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if gone {
		return "", &refusal{name + " " + k.Path, "the directory has been removed", "change to another directory"}
	}
	return path, nil
}
