// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/shim/host"
)

// checkpointOptions are the flags of mig checkpoint.
type checkpointOptions struct {
	imageOptions
	state string
	exit  bool
}

func checkpointCommand() *cobra.Command {
	var o checkpointOptions
	c := &cobra.Command{
		Use:   "checkpoint CONTAINER DIRECTORY",
		Short: "Save a container's processes into an image, while it runs on",
		Long: `Save a container's processes into an image, while it runs on.

containerd's clients pause a container for its checkpoint, for as long as it takes.
This asks the container's shim itself: a large container that runs on is stopped
for what it writes meanwhile only. The image holds the processes and what they hold
open, not the container's files: with --exit these stay as they were, and mig restore
goes on from there.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args[0], args[1], cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	o.add(f)
	f.StringVar(&o.state, "state", host.DefaultState, "containerd's state directory")
	f.BoolVar(&o.exit, "exit", false, "end the container when its image is complete")
	return c
}

func (o *checkpointOptions) run(ctx context.Context, id, dir string, out io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	h, err := host.Dial(ctx, o.containerd)
	if err != nil {
		return err
	}
	defer h.Close()
	s, err := h.Task(ctx, o.namespace, id)
	if err != nil {
		return err
	}
	shim, err := h.Shim(o.state, s)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = shim.Close() })() // cancels the checkpoint
	if err := shim.Checkpoint(dir, o.exit); err != nil {
		return err
	}
	return o.report(id, dir, out)
}

// report says what the request of a checkpoint says of itself.
func (o *checkpointOptions) report(id, dir string, out io.Writer) error {
	st, err := o.last(job.Checkpoint, id, dir)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(out, st)
	}
	_, err = fmt.Fprintf(out, "%s -> %s: %s in %s, stopped for %s\n", id, dir,
		size(st.Progress.Bytes), took(lasted(st, st.Updated)), took(st.Progress.Downtime))
	return err
}
