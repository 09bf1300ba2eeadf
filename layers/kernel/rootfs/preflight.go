// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names what a new container would not have.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	drop, err := dropTmpfs(s.env)
	if err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	init := procfs.Host().Process(s.env.Source.Init)
	out, err := s.inspectTmpfs(init, drop)
	if procfs.IsGone(err) {
		return nil, nil // it has ended: there is nothing to lose any more
	}
	if err != nil {
		return nil, fmt.Errorf("rootfs: pid %d: %w", init.Pid(), err)
	}
	return out, ctx.Err()
}
