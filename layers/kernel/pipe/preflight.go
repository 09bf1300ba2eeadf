// SPDX-License-Identifier: Apache-2.0

package pipe

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names pipes whose other end is outside of the container, while the
// tasks run. Processes that fork or close while they are looked at can make a
// pipe seem so: one that does is looked for a second time.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	first, err := s.suspects(ctx)
	if err != nil || len(first) == 0 {
		return nil, err
	}
	second, err := s.suspects(ctx)
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for id, f := range second {
		if _, both := first[id]; both {
			out = append(out, f)
		}
	}
	return out, nil
}

func (s *Subsystem) suspects(ctx context.Context) (map[inode]record.Finding, error) {
	pids, err := s.env.Source.Pids()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	var gs groups
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list, err := s.env.Source.Look(pid)
		if err != nil {
			return nil, fmt.Errorf("pipe: %w", err)
		}
		for i := range list {
			gs.add(end{pid: pid, d: &list[i]})
		}
	}
	out := map[inode]record.Finding{}
	for _, g := range gs.list {
		if g.fifo || g.stdin || g.reader() != nil && g.writer() != nil {
			continue
		}
		e := g.ends[0]
		r, err := s.peek(g, e)
		if err != nil {
			return nil, fmt.Errorf("pipe: pid %d: fd %d: %w", e.pid, e.d.FD, err)
		}
		if r == nil {
			continue
		}
		warning, err := s.carries(g)
		if err != nil && !procfs.IsGone(err) {
			return nil, fmt.Errorf("pipe: pid %d: %w", e.pid, err)
		}
		if warning {
			r = abandonment(r)
		}
		out[g.id] = record.Finding{Pid: e.d.Holder, FD: e.d.FD, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy, Warning: warning}
	}
	return out, nil
}

// peek opens the pipe once more for a moment, by the link of a descriptor: the
// process itself is not touched.
func (s *Subsystem) peek(g *group, e end) (*refusal, error) {
	path := e.d.Path()
	fd, err := unix.Open(path, e.d.Flags&unix.O_ACCMODE|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENXIO) {
		return nil, nil // closed meanwhile
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || (inode{st.Dev, st.Ino}) != g.id {
		return nil, err // the number leads to something else by now
	}
	return g.outside(fd)
}
