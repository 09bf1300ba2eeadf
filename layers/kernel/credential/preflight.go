// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names the threads that were restricted by seccomp(2) in a way that
// the spec does not repeat, and warns of keys. The tasks run: one that ends has
// nothing to refuse.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	out, err := s.env.Source.Survey(ctx, s.preflightProcess)
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	lost, err := s.lostKeys()
	if err != nil {
		return nil, fmt.Errorf("credential: look for keys: %w", err)
	}
	return append(out, lost...), nil
}

func (s *Subsystem) preflightProcess(p procfs.Task) ([]record.Finding, error) {
	tids, err := p.Threads()
	if err != nil {
		return nil, err
	}
	found := make([]*record.Finding, len(tids))
	err = s.env.Each(len(tids), func(i int) error {
		st, err := p.Thread(tids[i]).Status()
		if procfs.IsGone(err) {
			return nil
		}
		if err != nil || !st.HasMM {
			return err // it has ended or is about to
		}
		if what, why := seccompRefusal(&st, s.env.Source.SeccompFilters); what != "" {
			found[i] = &record.Finding{Pid: p.Pid(), TID: tids[i], FD: -1, Subsystem: Name, What: what, Why: why}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for _, f := range found {
		if f != nil {
			out = append(out, *f)
		}
	}
	return out, nil
}

// seccompRefusal compares a thread's filters with the number that the spec
// loads.
func seccompRefusal(st *procfs.Status, spec int) (what, why string) {
	filters := st.SeccompFilters
	if filters < 0 { // before Linux 5.9 only their presence is shown
		filters = 0
		if st.Seccomp == procfs.SeccompFilter {
			filters = max(spec, 1)
		}
	}
	switch {
	case filters < spec:
		return fmt.Sprintf("%d seccomp filters", filters), fmt.Sprintf("the spec loads %d, and a restored thread would have them all", spec)
	}
	return "", ""
}
