// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"context"
	"errors"
	"fmt"

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
		f.Pid, f.FD = t.Ends[0].Descriptor.Holder, t.Ends[0].Descriptor.FD
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
	m, err := describe(t, procfs.Host().Process(s.env.Source.Init))
	if err == nil {
		var n int
		if n, err = unread(t); n > 0 {
			if why := lost(t, m); why != "" {
				return found(unreadRefusal(t, n, why), true), nil
			}
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

func unreadRefusal(t *target.Terminal, n int, why string) *refusal {
	return &refusal{fmt.Sprintf("terminal pts/%d", t.Index), fmt.Sprintf("%d bytes in it that nobody has read are lost: %s", n, why), ""}
}

// orphanRefusal names a terminal whose other end is outside.
func orphanRefusal(t *target.Terminal) *refusal {
	return &refusal{
		fmt.Sprintf("terminal pts/%d", t.Index),
		"its master is held outside of the container, as that of a session of exec is by its client: it is hung up in a restored container (SIGHUP)",
		"leave the session",
	}
}
