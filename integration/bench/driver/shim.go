// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
)

// shim is a running shim and a connection to its task service, as containerd
// has one.
type shim struct {
	conn *ttrpc.Client
	task task.TTRPCTaskService
	pid  int
}

// startShim starts a shim in a bundle the way containerd does.
func (m *Mig) startShim(ctx context.Context, c *Container) error {
	cmd := exec.CommandContext(ctx, m.Program, "-namespace", m.Namespace, "-id", c.ID, "-address", m.events.address, "start")
	cmd.Dir = c.Bundle
	cmd.Env = append(m.Env, "TTRPC_ADDRESS="+m.events.address, "MAX_SHIM_VERSION=2")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("start a shim for %s: %w: %s", c.ID, err, tail(stderr.String()))
	}
	address, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "unix://")
	if !ok {
		return fmt.Errorf("the shim for %s answered %q", c.ID, out)
	}
	conn, err := net.Dial("unix", address)
	if err != nil {
		return fmt.Errorf("shim for %s: %w", c.ID, err)
	}
	s := &shim{conn: ttrpc.NewClient(conn)}
	s.task = task.NewTTRPCTaskClient(s.conn)
	c.shim = s
	answer, err := s.task.Connect(ctx, &task.ConnectRequest{ID: c.ID})
	if err != nil {
		return errors.Join(fmt.Errorf("shim for %s: %w", c.ID, err), c.stopShim(ctx))
	}
	s.pid = int(answer.ShimPid)
	return nil
}

// ShimPid is the process of a container's shim.
func (c *Container) ShimPid() int {
	if c.shim == nil {
		return 0
	}
	return c.shim.pid
}

// shimEnd bounds the wait for a shim's exit.
const shimEnd = 20 * time.Second

// stopShim asks the shim to end and waits for it: it must not run into the
// next measurement.
func (c *Container) stopShim(ctx context.Context) error {
	s := c.shim
	if s == nil {
		return nil
	}
	c.shim = nil
	_, err := s.task.Shutdown(ctx, &task.ShutdownRequest{ID: c.ID, Now: true})
	if errors.Is(err, ttrpc.ErrClosed) {
		err = nil
	}
	s.conn.Close()
	if s.pid == 0 {
		return err
	}
	for end := time.Now().Add(shimEnd); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if hasEnded(s.pid) {
			return err
		}
	}
	return errors.Join(err, fmt.Errorf("the shim %d of %s did not end within %v", s.pid, c.ID, shimEnd))
}

// hasEnded: the process is gone, or a zombie that its new parent, the machine's
// init, has yet to reap: some look only every few seconds.
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return strings.HasPrefix(state, "Z")
}
