// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names what cannot be carried, and what will be missed, while the
// tasks run.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	list, err := s.env.Source.LookTerminals(ctx)
	if err != nil {
		return nil, fmt.Errorf("tty: %w", err)
	}
	var out []record.Finding
	for _, t := range list {
		found, err := s.inspect(t)
		if err != nil {
			return nil, fmt.Errorf("tty: pts/%d: %w", t.Index, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// inspect looks at one terminal.
func (s *Subsystem) inspect(t *target.Terminal) ([]record.Finding, error) {
	f := record.Finding{Pid: s.env.Source.Init, FD: -1, Subsystem: Name}
	if len(t.Ends) > 0 {
		f.Pid, f.FD = t.Ends[0].Pid, t.Ends[0].Descriptor.FD
	}
	found := func(r *refusal, warning bool) []record.Finding {
		f.What, f.Why, f.Remedy, f.Warning = r.what, r.why, r.remedy, warning
		return []record.Finding{f}
	}
	if r := unsupported(t); r != nil {
		return found(r, false), nil
	}
	if orphaned(t) {
		return found(orphanRefusal(t), !s.env.RefusesExec()), nil
	}
	if !carried(t) {
		return nil, nil
	}
	_, err := describe(t, procfs.Host().Process(s.env.Source.Init))
	if err == nil {
		var n int
		if n, err = unread(t); n > 0 {
			return found(unreadRefusal(t, n), true), nil
		}
	}
	var r *refusal
	switch {
	case errors.As(err, &r):
		return found(r, false), nil
	case looksGone(err):
		return nil, nil
	}
	return nil, err
}

// unread counts the bytes that the kernel holds for the readers of a terminal:
// in canonical mode only those of whole lines. What the runtime has not read yet
// of the container's own is not lost.
func unread(t *target.Terminal) (int, error) {
	total := 0
	for _, e := range []*target.TerminalEnd{t.Master(), t.Slave()} {
		if e == nil {
			continue
		}
		f, err := e.Open()
		if err != nil {
			return 0, err
		}
		n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		f.Close()
		if err != nil {
			return 0, os.NewSyscallError("ioctl(FIONREAD)", err)
		}
		total += n
	}
	return total, nil
}

func unreadRefusal(t *target.Terminal, n int) *refusal {
	return &refusal{fmt.Sprintf("terminal pts/%d", t.Index), fmt.Sprintf("%d bytes in it that nobody has read are lost", n), ""}
}

// orphanRefusal names a terminal whose other end is outside.
func orphanRefusal(t *target.Terminal) *refusal {
	return &refusal{
		fmt.Sprintf("terminal pts/%d", t.Index),
		"its master is held outside of the container, as that of a session of exec is by its client: it is hung up in a restored container (SIGHUP)",
		"leave the session",
	}
}
