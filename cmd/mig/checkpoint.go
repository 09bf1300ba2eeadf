// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/shim/host"
)

// checkpointOptions are the flags of mig checkpoint.
type checkpointOptions struct {
	namespace, containerd, state, requests string
	exit, json                             bool
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
open, not the container's files: with --exit these stay as they were, and nerdctl
start --checkpoint goes on from there.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args[0], args[1], cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", fromEnv("CONTAINERD_NAMESPACE", "default"), "containerd's namespace of the container")
	f.StringVar(&o.containerd, "containerd", fromEnv("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock"), "containerd's socket")
	f.StringVar(&o.state, "state", host.DefaultState, "containerd's state directory")
	f.StringVar(&o.requests, "dir", request.DefaultDir, "directory of mig's state")
	f.BoolVar(&o.exit, "exit", false, "end the container when its image is complete")
	f.BoolVar(&o.json, "json", false, "print one JSON object, the request's status")
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
	st, err := o.last(id, dir)
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

// last is the container's last request that wrote this image.
func (o *checkpointOptions) last(id, dir string) (*request.Status, error) {
	store, err := request.OpenStore(o.requests, o.namespace)
	if err != nil {
		return nil, err
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	var found *request.Status
	for _, st := range list {
		if st.Kind == job.Checkpoint && st.Container == id && st.Image == dir && (found == nil || found.Created.Before(st.Created)) {
			found = st
		}
	}
	if found == nil {
		return nil, fmt.Errorf("the image %s of container %s is complete, but the request has no status in %s", dir, id, o.requests)
	}
	return found, nil
}
