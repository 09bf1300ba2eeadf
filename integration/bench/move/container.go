// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Run starts a container with a command line on the source host. The caller
// removes it.
func (w *World) Run(ctx context.Context, id string, args []string) error {
	full := append([]string{
		"run", "--detach", "--null-io", "--snapshotter", w.From.d.Snapshotter, "--runtime", "io.mig.v1", w.image.Name, id,
	}, args...)
	return w.From.d.Ctr(ctx, full...).Err()
}

// FirstPid is the container's first process, as the host's containerd has it. Hosts
// have no pid namespaces: it is a process of this machine.
func (h *Host) FirstPid(ctx context.Context, id string) (int, error) {
	r := h.d.Ctr(ctx, "tasks", "list")
	if err := r.Err(); err != nil {
		return 0, err
	}
	for line := range strings.Lines(r.Stdout) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id && f[2] == "RUNNING" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("%s does not run on %s: %s", id, h.Name, r.Stdout)
}

// Remove ends a container wherever it is and waits until nothing of it is left,
// so that it does not run into the next measurement. An error says what is.
func (w *World) Remove(ctx context.Context, id string) error {
	for _, h := range w.hosts() {
		// It is on one host only, and often without a task: what matters is
		// whether it is there afterwards.
		h.d.Ctr(ctx, "tasks", "delete", "--force", id)
		h.d.Ctr(ctx, "containers", "delete", id)
		r := h.d.Ctr(ctx, "containers", "list", "--quiet")
		if err := r.Err(); err != nil {
			return err
		}
		for name := range strings.FieldsSeq(r.Stdout) {
			if name == id {
				return fmt.Errorf("%s is still on %s", id, h.Name)
			}
		}
	}
	return nil
}
