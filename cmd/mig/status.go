// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/spf13/cobra"

	"github.com/io-mig/mig/layers/request"
)

// statusOptions are the flags of mig status.
type statusOptions struct {
	stores
	json, watch bool
}

func statusCommand() *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   "status [REQUEST|TOKEN]",
		Short: "Show the checkpoints, restores and moves of this host, or one of them whole",
		Long: `Show the checkpoints, restores and moves of this host, the newest first, or one of
them with its progress by subsystem and the whole text of its failure.`,
		Args: func(cmd *cobra.Command, args []string) error { return usage(cmd, cobra.MaximumNArgs(1)(cmd, args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			show := o.list
			if len(args) == 1 {
				show = func() (view, error) { return o.one(args[0]) }
			}
			if o.watch {
				return o.follow(cmd.Context(), cmd.OutOrStdout(), show)
			}
			v, err := show()
			if v == nil {
				return err
			}
			return errors.Join(o.print(cmd.OutOrStdout(), v), err)
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON: an array, one object of one request; with --watch one line for each change")
	c.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on until the request, or all that run, have ended")
	return c
}

// view is something of requests to show.
type view interface {
	// text is for a terminal of the given width, or for a file (0).
	text(width int, now time.Time) string
	// value is what is printed as JSON.
	value() any
	// over tells that nothing will change any more.
	over() bool
}

func (o *statusOptions) list() (view, error) {
	all, err := o.stores.list()
	if all == nil && err != nil {
		return nil, err
	}
	return table(all), err
}

func (o *statusOptions) one(id string) (view, error) {
	_, st, err := o.find(id)
	if err != nil {
		return nil, err
	}
	return detail{st}, nil
}

func (o *statusOptions) print(w io.Writer, v view) error {
	if o.json {
		return printJSON(w, v.value())
	}
	_, err := io.WriteString(w, v.text(terminalWidth(w), time.Now()))
	return err
}

// follow shows every change until nothing can change any more.
func (o *statusOptions) follow(ctx context.Context, w io.Writer, show func() (view, error)) error {
	screen := newScreen(w)
	var shown any
	for {
		v, err := show()
		if v == nil {
			return err
		}
		if value := v.value(); screen.live() && !o.json || !reflect.DeepEqual(value, shown) {
			shown = value
			if err := o.again(w, screen, v); err != nil {
				return err
			}
		}
		if v.over() {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // the person has seen enough
		case <-time.After(pollEvery):
		}
	}
}

func (o *statusOptions) again(w io.Writer, screen *screen, v view) error {
	if o.json {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(v.value())
	}
	return screen.show(v.text(terminalWidth(w), time.Now()))
}

// begun is when a request began to work, or was made.
func begun(st *request.Status) time.Time {
	if st.Started != nil {
		return *st.Started
	}
	return st.Created
}

// lasted is how long it has worked.
func lasted(st *request.Status, now time.Time) time.Duration {
	switch {
	case st.Ended != nil:
		return st.Ended.Sub(begun(st))
	case st.Phase.Final(): // lost: its last sign of life
		return st.Updated.Sub(begun(st))
	}
	return now.Sub(begun(st))
}

// rate in bytes per second, over all where there is no current one.
func rate(st *request.Status, now time.Time) string {
	r := st.Progress.Rate
	if d := lasted(st, now); (st.Phase.Final() || r == 0) && d > 0 {
		r = uint64(float64(st.Progress.Bytes) / d.Seconds())
	}
	return fmt.Sprintf("%s/s", size(r))
}
