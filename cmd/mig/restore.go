// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/shim/host"
)

// restoreOptions are the flags of mig restore.
type restoreOptions struct {
	imageOptions
	logURI string
}

func restoreCommand() *cobra.Command {
	var o restoreOptions
	c := &cobra.Command{
		Use:   "restore CONTAINER DIRECTORY",
		Short: "Have a container go on from an image of its processes",
		Long: `Have a container go on from an image of its processes.

The container is one that containerd knows and that has no task, or one that has
ended: it was made by ctr containers create, say, or ended by mig checkpoint --exit.
Its files are the container's own, as they are now; what it may do is what its OCI
configuration says. It runs in the background. Its output goes where --log-uri says,
or into the log that its ended task had.`,
		Args: words(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args[0], args[1], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	o.add(f)
	f.StringVar(&o.logURI, "log-uri", "", "where the container's output goes, for example file:///var/log/web")
	return c
}

// restored is what mig restore prints as JSON.
type restored struct {
	*request.Status
	Pid int `json:"pid"`
}

func (o *restoreOptions) run(ctx context.Context, id, dir string, out, warnings io.Writer) error {
	dir, err := readable(dir)
	if err != nil {
		return err
	}
	h, err := host.Dial(ctx, o.containerd)
	if err != nil {
		return err
	}
	defer h.Close()
	begin := time.Now()
	c, err := h.Ended(ctx, o.namespace, id, o.logURI)
	if err != nil {
		return err
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(warnings, "mig: warning:", plain(w))
	}
	pid, err := c.Restore(ctx, dir)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("interrupted: container %s was not restored", id)
	}
	if err != nil {
		return err
	}
	all := time.Since(begin)
	st, err := o.last(job.Restore, id, dir)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(out, restored{st, pid})
	}
	_, err = fmt.Fprintf(out, "%s <- %s: %s in %s, with its creation in %s, process %d\n", id, dir,
		size(st.Progress.Bytes), took(lasted(st, st.Updated)), took(all), pid)
	return err
}

// readable returns the absolute path of a directory with a whole image in it, as far
// as that is seen without its records: the ended task of a container should not go
// for an image that cannot be read.
func readable(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	im, err := directory.OpenImage(dir)
	if err != nil {
		return "", err
	}
	return dir, im.Close()
}
