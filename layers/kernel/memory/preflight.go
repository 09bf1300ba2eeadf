// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names the mappings that cannot be carried. The tasks run: a
// process that exits meanwhile has nothing left to refuse.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	out, err := s.env.Source.Survey(ctx, preflightProcess)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	return out, nil
}

func preflightProcess(p procfs.Task) ([]record.Finding, error) {
	smaps, err := p.Smaps()
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for i := range smaps {
		_, _, err := classify(&smaps[i])
		if err == nil && smaps[i].Kind == procfs.MapFile {
			err = onOwnTmpfs(p, &smaps[i])
		}
		var r *refusal
		if errors.As(err, &r) {
			out = append(out, record.Finding{Pid: p.Pid(), FD: -1, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
		}
	}
	exe, err := p.Exe()
	if err != nil {
		return out, err
	}
	if exe.Deleted {
		out = append(out, record.Finding{Pid: p.Pid(), FD: -1, Subsystem: Name, What: "executable " + exe.Path,
			Why: "it has been deleted or replaced", Remedy: "restart the process so that it runs the new file"})
	}
	return out, nil
}
