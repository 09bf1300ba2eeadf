// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/address"
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
		Args: words(2),
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
	dir, err := localDirectory(dir)
	if err != nil {
		return err
	}
	began, made := time.Now(), firstMissing(dir)
	if err := o.checkpoint(ctx, id, dir); err != nil {
		if ctx.Err() != nil {
			return o.interrupted(context.WithoutCancel(ctx), id, dir, made, began)
		}
		return err
	}
	return o.report(id, dir, out)
}

// checkpoint has the shim do it. The end of ctx cancels it.
func (o *checkpointOptions) checkpoint(ctx context.Context, id, dir string) error {
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
	defer context.AfterFunc(ctx, func() { _ = shim.Close() })()
	return shim.Checkpoint(dir, o.exit)
}

// firstMissing is the uppermost directory that the shim will have to make, and that it
// removes again if there is no image; empty if dir is there.
func firstMissing(dir string) (first string) {
	for p := dir; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); err == nil || p == filepath.Dir(p) {
			return first
		}
		first = p
	}
}

// aURL is what mig checkpoint does not take: a scheme and something behind it.
var aURL = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:/`)

// localDirectory is the absolute path of a directory that a person has typed.
func localDirectory(dir string) (string, error) {
	switch {
	case dir == "":
		return "", errors.New("an empty name is no directory for an image")
	case address.IsMove(dir):
		return "", fmt.Errorf("%s is another host: mig migrate moves a container there", dir)
	case aURL.MatchString(dir):
		return "", fmt.Errorf("%s is a URL, and an image is written into a directory: ./%s if it is really called so", dir, dir)
	}
	return filepath.Abs(dir)
}

// interrupted waits until the shim has undone the checkpoint, which it begins as soon
// as the connection to it has ended. made is what it has made then, see firstMissing.
func (o *checkpointOptions) interrupted(ctx context.Context, id, dir, made string, began time.Time) error {
	store, err := request.OpenStore(o.requests, o.namespace)
	if err != nil {
		return err
	}
	list, err := store.List()
	for _, st := range list {
		if st.Kind != job.Checkpoint || st.Container != id || st.Image != dir || st.Created.Before(began) {
			continue
		}
		if st, err = awaitEnd(ctx, store, st.ID, time.Minute); err != nil {
			return err
		}
		if st.Phase == request.Succeeded {
			return fmt.Errorf("interrupted too late: the image %s of %s is complete", dir, id)
		}
		awaitGone(made)
		return fmt.Errorf("interrupted: the checkpoint of %s was undone (mig status %s tells more)", id, st.ID)
	}
	return errors.Join(fmt.Errorf("interrupted: the checkpoint of %s had not begun", id), err)
}

// awaitGone waits a little for the removal of what was made: the last thing that the shim
// does, when its request has ended already.
func awaitGone(made string) {
	for end := time.Now().Add(2 * time.Second); made != "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Lstat(made); err != nil {
			return
		}
	}
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
