// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"

	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim/stdio"
)

// openStreams connects what the process reads and writes, but for a terminal.
func (s *service) openStreams(ctx context.Context, t *task, p *process) error {
	streams, err := stdio.Open(ctx, stdio.Config{
		ID: t.apiID(p), Namespace: t.namespace, URIs: p.uris,
		UID: t.init.ioUID, GID: t.init.ioGID,
		Spawn: runtime.Spawn,
	})
	if err != nil {
		return fmt.Errorf("failed to create init process I/O: %w", err)
	}
	t.mu.Lock()
	p.streams = streams
	t.mu.Unlock()
	return nil
}

// childStdio is the process's side. The files are in use until attach.
func (p *process) childStdio() runtime.Stdio {
	stdin, stdout, stderr := p.streams.Child()
	return runtime.Stdio{Stdin: stdin, Stdout: stdout, Stderr: stderr, Terminal: p.uris.Terminal}
}

// attach follows the creation of the process: the terminal is connected, and
// the process's ends of the pipes are closed here.
func (p *process) attach(ctx context.Context) error {
	defer p.streams.Started()
	master := p.rt.Console()
	if master == nil {
		return nil
	}
	rt := p.rt
	err := p.streams.AttachConsole(ctx, master, func() { rt.Close() })
	if err != nil {
		return fmt.Errorf("failed to start console copy: %w", err)
	}
	return nil
}
